"use strict";

const byId = (id) => document.getElementById(id);

/** Undo base64 and zlib; resolves to a Uint8Array. */
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A mask: its box (z0, y0, x0, z1, y1, x1) on the stored grid, and a byte for every voxel inside the box. */
async function unpackMask(mask) {
  const bits = await inflate(mask.bits);
  const size = [0, 1, 2].map((axis) => mask.box[axis + 3] - mask.box[axis]);
  const inside = new Uint8Array(size[0] * size[1] * size[2]);
  for (let i = 0; i < inside.length; i++) inside[i] = (bits[i >> 3] >> (7 - (i & 7))) & 1;
  const has = (place) => {
    let index = 0;
    for (let axis = 0; axis < 3; axis++) {
      if (place[axis] < mask.box[axis] || place[axis] >= mask.box[axis + 3]) return false;
      index = index * size[axis] + place[axis] - mask.box[axis];
    }
    return inside[index] === 1;
  };
  return { box: mask.box, volume: inside.reduce((sum, value) => sum + value, 0), has };
}

const volumeOf = (box) => [0, 1, 2].reduce((product, axis) => product * (box[axis + 3] - box[axis]), 1);
const contains = (box, place) =>
  [0, 1, 2].every((axis) => box[axis] < place[axis] + 1 && box[axis + 3] > place[axis]);

/** What is shown; every change goes through set(), which draws again. */
class Viewer {
  constructor(data, voxels) {
    this.image = data.image;
    this.voxels = voxels;
    this.findings = data.findings;
    this.order = data.findings.filter((finding) => finding.found).sort((a, b) => b.extent - a.extent);
    this.position = this.image.size.map((size) => size >> 1);
    this.visible = new Set(this.order.map((finding) => finding.number));
    this.current = null;
    this.bright = null;
    this.masks = true;
    this.boxes = true;
    [this.level, this.width] = this.image.window;
    this.listeners = [];
  }

  set(changes) {
    Object.assign(this, changes);
    for (const listener of this.listeners) listener();
  }

  /** Slice number of an array axis, kept inside the image. */
  moveTo(axis, index) {
    const position = [...this.position];
    position[axis] = Math.max(0, Math.min(this.image.size[axis] - 1, index));
    this.set({ position });
  }

  /** A click on a phrase: go to the finding; a second click hides or shows it. */
  pick(finding) {
    const visible = new Set(this.visible);
    if (this.current === finding.number && visible.has(finding.number)) visible.delete(finding.number);
    else visible.add(finding.number);
    this.set({ visible, current: finding.number, position: [...finding.slices] });
  }

  /** The smallest visible finding at a voxel, or null. */
  findingAt(place) {
    const hit = [...this.order].reverse().find((finding) => this.visible.has(finding.number) && (
      (this.masks && finding.mask && finding.mask.has(place)) ||
      (this.boxes && finding.boxes.some((box) => contains(box, place)))));
    return hit ? hit.number : null;
  }

  /** Grey value of every stored level in the current window. */
  lookup() {
    const low = this.level - this.width / 2;
    return this.image.levels.map((value) => Math.max(0, Math.min(255, ((value - low) / this.width) * 255)));
  }
}

/** The report; phrases that were found act as buttons. */
function showReport(viewer, pieces) {
  for (const [text, number] of pieces) {
    const finding = number && viewer.findings[number - 1];
    const span = document.createElement("span");
    span.textContent = text;
    byId("report").append(span);
    if (!finding) continue;
    span.className = finding.found ? "phrase" : "unfound";
    if (!finding.found) continue;
    const mark = document.createElement("sup");
    mark.textContent = number;
    span.append(mark);
    span.style.setProperty("--colour", `rgb(${finding.colour.join(" ")})`);
    span.style.setProperty("--text-colour", `rgb(${finding.textColour.join(" ")})`);
    if (finding.scores.length) span.title = `score ${Math.max(...finding.scores).toFixed(2)}`;
    Object.assign(span, { tabIndex: 0, role: "button" });
    span.addEventListener("click", () => viewer.pick(finding));
    span.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      viewer.pick(finding);
    });
    span.addEventListener("mouseenter", () => viewer.set({ bright: number }));
    span.addEventListener("mouseleave", () => viewer.set({ bright: null }));
    viewer.listeners.push(() => {
      span.setAttribute("aria-pressed", viewer.visible.has(number));
      span.classList.toggle("current", viewer.current === number);
      span.classList.toggle("bright", viewer.bright === number);
    });
  }
}

function showControls(viewer) {
  for (const kind of ["masks", "boxes"]) {
    const box = byId(`show-${kind}`);
    box.addEventListener("change", () => viewer.set({ [kind]: box.checked }));
  }
  byId("window").hidden = viewer.image.channels === 3;
  const { levels, presets, window: initial } = viewer.image;
  const windows = { "initial": initial, ...presets };
  byId("preset").append(...Object.keys(windows).map((name) => new Option(name)));
  byId("preset").addEventListener("change", () => {
    const [level, width] = windows[byId("preset").value];
    viewer.set({ level, width });
  });
  const range = levels[255] - levels[0];
  Object.assign(byId("level"), { min: levels[0], max: levels[255] });
  Object.assign(byId("width"), { min: range / 256, max: range });
  for (const name of ["level", "width"]) {
    byId(name).addEventListener("input", () => viewer.set({ [name]: Number(byId(name).value) }));
  }
  viewer.listeners.push(() => {
    byId("level").value = viewer.level;
    byId("width").value = viewer.width;
    const digits = range >= 20 ? 0 : 3;
    byId("window-values").value = `${viewer.level.toFixed(digits)} / ${viewer.width.toFixed(digits)}`;
  });
}

function showNote(image) {
  const reduced = image.factors.some((factor) => factor > 1);
  byId("note").textContent = reduced
    ? `Reduced from ${image.originalSize.join(" x ")} to ${image.size.join(" x ")} voxels (z, y, x), 256 grey levels. Not for diagnosis.`
    : `${image.size.join(" x ")} voxels (z, y, x), 256 grey levels. Not for diagnosis.`;
}

async function main() {
  const data = JSON.parse(byId("data").textContent);
  for (const finding of data.findings) {
    if (finding.mask) finding.mask = await unpackMask(finding.mask);
    finding.extent = finding.mask ? finding.mask.volume : finding.boxes.reduce((sum, box) => sum + volumeOf(box), 0);
  }
  const viewer = new Viewer(data, await inflate(data.image.voxels));
  document.querySelector("main").className = data.planes.length > 1 ? "volume" : "flat";
  byId("views").style.setProperty("--columns", data.planes.length);
  for (const plane of data.planes) new View(viewer, plane, byId("views"));
  showReport(viewer, data.text);
  showControls(viewer);
  showNote(data.image);
  const first = viewer.findings.find((finding) => finding.found);
  viewer.set(first ? { position: [...first.slices] } : {});
  document.body.dataset.ready = "true";
}

main().catch((error) => {
  byId("note").textContent = `This page needs a browser of 2023 or later (${error.message}).`;
});
