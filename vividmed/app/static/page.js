// The page: opens scans, asks the model, and shows where the phrases of its answers are.

import * as api from "./api.js";
import { addAnswer, addQuestion, addText, showPhrases } from "./answers.js";
import { planeNames, Viewer } from "./viewer.js";

const byId = (id) => document.getElementById(id);
const log = byId("answers");
const PROMPTS = {
  report: ["Request", "Can you provide a radiology report for this medical image?"],
  question: ["Question", ""],
  segment: ["Structures or findings, separated by commas", ""],
  ground: ["Report; phrases may be marked as <p>phrase</p>", ""],
};

let about;
let scan = null;
let messages = [];
let shown = null;
let running = null;
const viewer = new Viewer(byId("viewer"), (place) => (byId("place").textContent = place));

function setState(state, text = "", isError = false) {
  document.body.dataset.state = state;
  byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
  const isBusy = state !== "ready";
  byId("display").disabled = !scan;
  byId("asking").disabled = !scan || state === "opening";
  byId("send").disabled = isBusy;
  byId("stop").hidden = state !== "answering";
  byId("downloads").disabled = !shown || isBusy;
}

const fail = (error) => setState("ready", `Error: ${error.message}`, true);

function fillSelect(select, names, first) {
  select.replaceChildren(...(first ? [new Option(first, "")] : []), ...names.map((name) => new Option(name, name)));
}

async function start() {
  about = await api.about();
  byId("model").textContent = about.model;
  fillSelect(byId("samples"), about.samples, "choose");
  for (const option of byId("task").options)
    option.disabled = ["segment", "ground"].includes(option.value) && !about.can_ground;
  byId("formats").replaceChildren(
    ...about.formats.map((format) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = format;
      button.dataset.format = format;
      button.addEventListener("click", () => download(format).catch(fail));
      return button;
    }),
  );
  setTask();
  setState("ready");
}

async function open(files, sample) {
  if (!files.length && !sample) return;
  running?.abort();
  setState("opening", "Reading the scan...");
  try {
    const opened = await api.openScan(files, sample);
    if (scan) api.closeScan(scan.id);
    scan = opened;
    forget();
    const [image, overlay] = await Promise.all(
      ["image.nii.gz", "overlay.nii.gz"].map((name) => api.fetchFile(scan.id, name)),
    );
    await viewer.show(image.blob, overlay.blob);
    showControls();
    setState("ready", `${scan.size.join(" x ")} voxels (z, y, x)${scan.modality ? `, ${scan.modality}` : ""}`);
  } catch (error) {
    fail(error);
  }
}

function showControls() {
  fillSelect(byId("planes"), planeNames(scan.is_volume));
  viewer.setPlanes(byId("planes").value);
  fillSelect(byId("preset"), Object.keys(scan.presets), "automatic");
  for (const id of ["preset", "level", "width"]) byId(id).disabled = scan.is_colour;
  setWindow(...scan.window);
  viewer.setOpacity(Number(byId("opacity").value));
  for (const button of byId("formats").children)
    button.disabled = button.dataset.format.startsWith("dicom") && !scan.has_dicom_files;
}

function setWindow(level, width) {
  byId("level").value = Number(level.toPrecision(4));
  byId("width").value = Number(width.toPrecision(4));
  if (!scan.is_colour && width > 0) viewer.setWindow(level, width);
}

function forget() {
  messages = [];
  shown = null;
  log.replaceChildren();
  if (viewer.nv.volumes.length > 1) viewer.draw([], scan.size);
}

function setTask() {
  const [label, text] = PROMPTS[byId("task").value];
  byId("prompt-label").textContent = label;
  byId("prompt").value = text;
}

async function ask(event) {
  event.preventDefault();
  const task = byId("task").value;
  const text = byId("prompt").value.trim();
  if (!scan || running || !text) return;
  running = new AbortController();
  addQuestion(log, text);
  const answer = addAnswer(log);
  setState("answering", "Answering...");
  try {
    const found = await (["segment", "ground"].includes(task) ? find(task, text) : converse(task, text, answer));
    if (found) await show(found, answer);
    setState("ready");
  } catch (error) {
    answer.remove();
    if (error.name === "AbortError") setState("ready", "Stopped.");
    else fail(error);
  } finally {
    running = null;
  }
}

function find(task, text) {
  const given = task === "ground" ? { text } : { targets: text.split(",").map((name) => name.trim()).filter(Boolean) };
  return api.find(`v1/${task}`, { image: `session:${scan.id}`, masks: "packed", ...given }, running.signal);
}

async function converse(task, text, answer) {
  const first = { type: "image_url", image_url: { url: `session:${scan.id}` } };
  const content = [...(messages.length ? [] : [first]), { type: "text", text }];
  const asked = [...messages, { role: "user", content }];
  const body = {
    model: about.model,
    messages: asked,
    vividmed: { grounding: task === "report" && about.can_ground, masks: "packed" },
  };
  let written = "";
  const places = await api.chat(body, (piece) => {
    written += piece;
    addText(log, answer, piece);
  }, running.signal);
  messages = written.trim() ? [...asked, { role: "assistant", content: written }] : messages;
  if (task === "question") byId("prompt").value = "";
  return places;
}

async function show(found, answer) {
  shown = found;
  for (const phrase of found.phrases) phrase.extent = extent(phrase);
  showPhrases(answer, found, (phrase, button) => toggle(found, phrase, button));
  await viewer.draw(found.phrases, scan.size);
  const best = found.phrases.find((phrase) => phrase.slices);
  if (best) viewer.goTo(best.slices, found.grid.affine_xyz_to_ras_mm);
}

function extent({ mask, boxes }) {
  const volume = ([z0, y0, x0, z1, y1, x1]) => (z1 - z0) * (y1 - y0) * (x1 - x0);
  return Math.max(0, ...(mask ? [mask.box] : boxes).map(volume));
}

// Shows one phrase; pressed again, all phrases of its answer.
async function toggle(found, phrase, button) {
  setState("drawing");
  const isOn = button.getAttribute("aria-pressed") !== "true";
  for (const other of log.querySelectorAll(".phrase")) other.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", String(isOn));
  await viewer.draw(isOn ? [phrase] : found.phrases, scan.size);
  viewer.goTo(phrase.slices, found.grid.affine_xyz_to_ras_mm);
  setState("ready");
}

async function download(format) {
  const { blob, title } = await api.fetchFile(scan.id, `files/${format}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = title;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  setState("ready", `${title} saved.`);
}

const drop = document.documentElement;
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
drop.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  open([...event.dataTransfer.files]);
});
byId("files").addEventListener("change", (event) => {
  open([...event.target.files]);
  event.target.value = "";
});
byId("samples").addEventListener("change", (event) => open([], event.target.value));
byId("planes").addEventListener("change", (event) => viewer.setPlanes(event.target.value));
byId("preset").addEventListener("change", (event) => setWindow(...(scan.presets[event.target.value] ?? scan.window)));
for (const id of ["level", "width"])
  byId(id).addEventListener("change", () => setWindow(Number(byId("level").value), Number(byId("width").value)));
byId("opacity").addEventListener("input", (event) => viewer.setOpacity(Number(event.target.value)));
byId("crosshair").addEventListener("change", (event) => viewer.setCrosshair(event.target.checked));
byId("task").addEventListener("change", setTask);
byId("ask").addEventListener("submit", ask);
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) byId("ask").requestSubmit();
  else return;
  event.preventDefault();
});
byId("stop").addEventListener("click", () => running?.abort());
byId("forget").addEventListener("click", () => {
  forget();
  setState("ready");
});
addEventListener("pagehide", () => scan && api.closeScan(scan.id));

start().catch(fail);
