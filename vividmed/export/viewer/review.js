
/** Decisions of one reader about the items of one study, kept by the browser until they are saved as CSV. */
const review = JSON.parse(byId("panel-data").textContent);
const columns = ["id", "item", "text", "target", "decision", "new_text", "new_target", "reader", "comment"];
const memory = `vividmed-review:${review.run}:${review.id}`;

/** What the browser remembers; nothing where it does not let pages from disk keep anything. */
function remembered() {
  try {
    return JSON.parse(localStorage.getItem(memory)) || {};
  } catch {
    return {};
  }
}

const decisions = remembered();

function remember() {
  try {
    localStorage.setItem(memory, JSON.stringify(decisions));
  } catch {
    // The page still saves what was decided since it was opened.
  }
  const done = review.items.filter((item) => decisions[item.name] && decisions[item.name].decision).length;
  byId("progress").value = `${done} of ${review.items.length} decided`;
}

const quoted = (cell) => `"${String(cell).replaceAll('"', '""')}"`;

function csv() {
  const lines = review.items
    .filter((item) => decisions[item.name] && decisions[item.name].decision)
    .map((item) => {
      const { decision, new_text = "", new_target = "", comment = "" } = decisions[item.name];
      const edited = decision === "edit" ? [new_text, new_target] : ["", ""];
      return [review.id, item.name, item.text, item.target, decision, ...edited, byId("reader").value, comment];
    });
  return [columns, ...lines].map((cells) => cells.map(quoted).join(",")).join("\r\n") + "\r\n";
}

function field(item, name, label, list) {
  const input = document.createElement("input");
  input.value = (decisions[item.name] || {})[name] || "";
  input.name = `${item.name} ${name}`;
  if (list) input.setAttribute("list", list);
  input.addEventListener("input", () => {
    decisions[item.name] = { ...decisions[item.name], [name]: input.value };
    remember();
  });
  const caption = document.createElement("label");
  caption.textContent = label;
  return [caption, input];
}

function showItem(item) {
  const entry = document.createElement("li");
  const title = document.createElement("div");
  title.textContent = item.name.startsWith("phrase") ? `“${item.text}” means ${item.target}` : `place of: ${item.text}`;
  const reasons = document.createElement("div");
  reasons.className = "reasons";
  reasons.textContent = item.reasons.join("; ");
  const choices = document.createElement("div");
  choices.className = "choices";
  const edit = document.createElement("div");
  edit.className = "edit";
  if (item.name.startsWith("phrase")) edit.append(...field(item, "new_text", "words of the report"));
  edit.append(...field(item, "new_target", "target", "targets"), ...field(item, "comment", "comment"));
  for (const choice of ["accept", "reject", "edit"]) {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: item.name, value: choice });
    radio.checked = (decisions[item.name] || {}).decision === choice;
    radio.addEventListener("change", () => {
      decisions[item.name] = { ...decisions[item.name], decision: choice };
      edit.hidden = choice !== "edit";
      remember();
    });
    label.append(radio, ` ${choice}`);
    choices.append(label);
  }
  edit.hidden = (decisions[item.name] || {}).decision !== "edit";
  entry.append(title, reasons, choices, edit);
  byId("items").append(entry);
}

for (const target of review.targets) byId("targets").append(new Option(target, target));
for (const item of review.items) showItem(item);
byId("reader").value = decisions.reader || "";
byId("reader").addEventListener("input", () => {
  decisions.reader = byId("reader").value;
  remember();
});
byId("save").addEventListener("click", () => {
  if (!byId("review").reportValidity()) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = `${review.file}-${byId("reader").value.replace(/[^\w-]+/g, "-")}.csv`;
  link.click();
});
remember();
