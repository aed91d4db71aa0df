// Calls of the server. The token, if the server has one, lives as long as the tab.

const TOKEN = "vividmed-token";

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function askForToken() {
  const dialog = document.getElementById("login");
  const input = document.getElementById("token");
  input.value = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  sessionStorage.setItem(TOKEN, input.value);
}

async function call(path, options = {}) {
  for (;;) {
    const response = await fetch(path, { ...options, headers: { ...options.headers, ...headers() } });
    if (response.status === 401) {
      await askForToken();
      continue;
    }
    if (!response.ok) {
      const body = await response.json().catch(() => null);
      throw new Error(body?.error?.message ?? `the server answered with status ${response.status}`);
    }
    return response;
  }
}

const json = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

export const about = async () => (await call("page/about")).json();

export async function openScan(files, sample) {
  const form = new FormData();
  for (const file of files) form.append("file", file, "scan");
  if (sample) form.append("sample", sample);
  return (await call("page/scans", { method: "POST", body: form })).json();
}

export async function fetchFile(id, name) {
  const response = await call(`page/scans/${id}/${name}`);
  const title = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? name;
  return { blob: await response.blob(), title };
}

// The page may be closing: the request must outlive it.
export const closeScan = (id) =>
  fetch(`page/scans/${id}`, { method: "DELETE", headers: headers(), keepalive: true }).catch(() => null);

export async function find(path, body, signal) {
  return (await call(path, { ...json(body), signal })).json();
}

// Streams an answer: onText gets each piece; resolves to the places, or null.
export async function chat(body, onText, signal) {
  const response = await call("v1/chat/completions", { ...json({ ...body, stream: true }), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  let places = null;
  let isComplete = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done && isComplete) return places;
    if (done) throw new Error("the answer was cut off");
    waiting += value;
    const events = waiting.split("\n\n");
    waiting = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      isComplete = data === "[DONE]";
      if (isComplete) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      places = chunk.vividmed ?? places;
      const text = chunk.choices[0]?.delta.content;
      if (text) onText(text);
    }
  }
}
