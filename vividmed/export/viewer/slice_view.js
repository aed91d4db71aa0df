"use strict";

const FILL = 0.3;

/** One plane: a canvas, its slice bar, and what the mouse does. Draws what a Viewer holds. */
class View {
  constructor(viewer, plane, parent) {
    this.viewer = viewer;
    this.plane = plane;
    this.size = plane.axes.map((axis) => viewer.image.size[axis]);
    this.raster = document.createElement("canvas");
    [this.raster.height, this.raster.width] = [this.size[1], this.size[2]];
    const element = document.createElement("div");
    element.className = "view";
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${plane.name} slice`);
    element.append(this.canvas, this.makeBar());
    parent.append(element);
    this.element = element;
    this.listen();
    viewer.listeners.push(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(element);
  }

  makeBar() {
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.hidden = this.size[0] === 1;
    this.slider = document.createElement("input");
    Object.assign(this.slider, { type: "range", min: 0, max: this.size[0] - 1, step: 1 });
    this.slider.setAttribute("aria-label", `${this.plane.name} slice`);
    this.slider.addEventListener("input", () => this.viewer.moveTo(this.plane.axes[0], Number(this.slider.value)));
    this.caption = document.createElement("output");
    bar.append(this.slider, this.caption);
    return bar;
  }

  listen() {
    this.canvas.addEventListener("wheel", (event) => {
      if (this.size[0] === 1) return;
      event.preventDefault();
      this.viewer.moveTo(this.plane.axes[0], this.index + Math.sign(event.deltaY));
    }, { passive: false });
    this.canvas.addEventListener("click", (event) => this.viewer.set({ position: this.placeAt(event) }));
    this.canvas.addEventListener("mousemove", (event) => {
      const bright = this.viewer.findingAt(this.placeAt(event));
      if (bright !== this.viewer.bright) this.viewer.set({ bright });
    });
    this.canvas.addEventListener("mouseleave", () => this.viewer.set({ bright: null }));
  }

  get index() {
    return this.viewer.position[this.plane.axes[0]];
  }

  /** Voxel (z, y, x) of a row and a column on the screen. */
  place(row, column) {
    const place = [0, 0, 0];
    const [axis, rows, columns] = this.plane.axes;
    place[axis] = this.index;
    place[rows] = this.plane.flips[1] ? this.size[1] - 1 - row : row;
    place[columns] = this.plane.flips[2] ? this.size[2] - 1 - column : column;
    return place;
  }

  placeAt(event) {
    const frame = this.canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const row = Math.floor(((event.clientY - frame.top) * ratio) / this.step[0]);
    const column = Math.floor(((event.clientX - frame.left) * ratio) / this.step[1]);
    return this.place(Math.max(0, Math.min(this.size[1] - 1, row)), Math.max(0, Math.min(this.size[2] - 1, column)));
  }

  /** Edges [top, left, bottom, right] of a box in voxels of the screen. */
  rectangle(box) {
    const interval = (i) => {
      const [low, high] = [box[this.plane.axes[i]], box[this.plane.axes[i] + 3]];
      return this.plane.flips[i] ? [this.size[i] - high, this.size[i] - low] : [low, high];
    };
    const [[top, bottom], [left, right]] = [interval(1), interval(2)];
    return [top, left, bottom, right];
  }

  draw() {
    this.fit();
    this.slider.value = this.index;
    const axis = this.plane.axes[0];
    const factor = this.viewer.image.factors[axis];
    this.caption.value = `${this.plane.name} ${"zyx"[axis]} ${this.index * factor} of ${this.viewer.image.originalSize[axis]}`;
    const context = this.canvas.getContext("2d");
    this.drawSlice(context);
    const shown = this.viewer.order.filter((finding) => this.viewer.visible.has(finding.number));
    this.labels = [];
    if (this.viewer.masks) for (const finding of shown) this.drawMask(context, finding);
    if (this.viewer.boxes) for (const finding of shown) this.drawBoxes(context, finding);
    for (const [finding, x, y] of this.labels) this.drawNumber(context, finding, x, y);
    this.drawPosition(context);
    this.drawLetters(context);
  }

  /** Size the canvas to its column, in the proportions of the slice in mm. */
  fit() {
    const [height, width] = this.plane.extent;
    const scale = Math.min(this.element.clientWidth / width, (window.innerHeight * 0.8) / height);
    this.canvas.style.width = `${Math.max(1, width * scale)}px`;
    this.canvas.style.height = `${Math.max(1, height * scale)}px`;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(width * scale * ratio));
    this.canvas.height = Math.max(1, Math.round(height * scale * ratio));
    // Pixels a voxel; the last block of a reduced image may reach beyond its edge.
    this.step = [1, 2].map((i) => this.plane.spacing[i] * scale * ratio);
  }

  drawSlice(context) {
    const { voxels, image } = this.viewer;
    const lookup = this.viewer.lookup();
    const strides = [image.size[1] * image.size[2], image.size[2], 1];
    const channel = image.channels === 3 ? strides[0] * image.size[0] : 0;
    const [, rows, columns] = this.plane.axes;
    const [rowStep, columnStep] = [strides[rows], strides[columns]].map((s, i) => (this.plane.flips[i + 1] ? -s : s));
    const start = this.place(0, 0).reduce((sum, index, axis) => sum + index * strides[axis], 0);
    const pixels = this.raster.getContext("2d").createImageData(this.size[2], this.size[1]);
    for (let row = 0, out = 0; row < this.size[1]; row++) {
      for (let column = 0; column < this.size[2]; column++, out += 4) {
        const source = start + row * rowStep + column * columnStep;
        for (let c = 0; c < 3; c++) pixels.data[out + c] = lookup[voxels[source + c * channel]];
        pixels.data[out + 3] = 255;
      }
    }
    this.raster.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.raster, 0, 0, this.size[2] * this.step[1], this.size[1] * this.step[0]);
  }

  /** Fill the voxels of a mask and stroke the edges between inside and outside. */
  drawMask(context, finding) {
    const axis = this.plane.axes[0];
    if (!finding.mask || this.index < finding.mask.box[axis] || this.index >= finding.mask.box[axis + 3]) return;
    const [top, left, bottom, right] = this.rectangle(finding.mask.box);
    const inside = (row, column) => row >= top && row < bottom && column >= left && column < right &&
      finding.mask.has(this.place(row, column));
    const [dy, dx] = this.step;
    const outline = new Path2D();
    const area = new Path2D();
    let corner = null;
    for (let row = top; row <= bottom; row++) {
      let begin = -1;
      for (let column = left; column <= right; column++) {
        const here = inside(row, column);
        const [x, y] = [column * dx, row * dy];
        if (here !== inside(row - 1, column)) { outline.moveTo(x, y); outline.lineTo(x + dx, y); }
        if (here !== inside(row, column - 1)) { outline.moveTo(x, y); outline.lineTo(x, y + dy); }
        if (here && begin < 0) begin = column;
        if (!here && begin >= 0) {
          area.rect(begin * dx, y, (column - begin) * dx, dy);
          begin = -1;
        }
        if (here && !corner) corner = [x, y];
      }
    }
    if (!corner) return;
    const colour = finding.colour.join(" ");
    const bright = this.viewer.bright === finding.number;
    context.fillStyle = `rgb(${colour} / ${bright ? 2 * FILL : FILL})`;
    context.fill(area);
    context.strokeStyle = `rgb(${colour})`;
    context.lineWidth = (bright ? 3 : 1.5) * (window.devicePixelRatio || 1);
    context.stroke(outline);
    this.labels.push([finding, ...corner]);
  }

  drawBoxes(context, finding) {
    const axis = this.plane.axes[0];
    const ratio = window.devicePixelRatio || 1;
    const labelled = this.labels.some(([drawn]) => drawn === finding);
    for (const box of finding.boxes) {
      if (box[axis] >= this.index + 1 || box[axis + 3] <= this.index) continue;
      const [top, left, bottom, right] = this.rectangle(box);
      const frame = [left * this.step[1], top * this.step[0], (right - left) * this.step[1], (bottom - top) * this.step[0]];
      for (const [colour, width] of [["rgb(0 0 0)", 2], [`rgb(${finding.colour.join(" ")})`, 0]]) {
        context.strokeStyle = colour;
        context.lineWidth = (width + (this.viewer.bright === finding.number ? 4 : 2)) * ratio;
        context.strokeRect(...frame);
      }
      if (!labelled) this.labels.push([finding, frame[0], frame[1]]);
    }
  }

  /** A finding's number on its colour, above a point if there is room. */
  drawNumber(context, finding, x, y) {
    const ratio = window.devicePixelRatio || 1;
    const label = String(finding.number);
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    const [width, height] = [context.measureText(label).width + 8 * ratio, 17 * ratio];
    const [left, top] = [Math.min(x, this.canvas.width - width), y >= height ? y - height : y];
    context.fillStyle = `rgb(${finding.colour.join(" ")})`;
    context.fillRect(left, top, width, height);
    context.fillStyle = `rgb(${finding.textColour.join(" ")})`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(label, left + width / 2, top + height / 2);
  }

  /** Ticks at the edges show where the other planes cut. */
  drawPosition(context) {
    if (this.size[0] === 1) return;
    const [, rows, columns] = this.plane.axes;
    const at = (i, axis) => {
      const index = this.viewer.position[axis];
      return ((this.plane.flips[i] ? this.size[i] - 1 - index : index) + 0.5) * this.step[i - 1];
    };
    const [y, x] = [at(1, rows), at(2, columns)];
    const tick = 10 * (window.devicePixelRatio || 1);
    const { width, height } = this.canvas;
    context.beginPath();
    for (const [x0, y0, x1, y1] of [[0, y, tick, y], [width - tick, y, width, y], [x, 0, x, tick], [x, height - tick, x, height]]) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    context.strokeStyle = "rgb(255 255 255 / 0.7)";
    context.lineWidth = window.devicePixelRatio || 1;
    context.stroke();
  }

  drawLetters(context) {
    if (!this.plane.letters) return;
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.canvas;
    const inset = 18 * ratio;
    context.font = `${14 * ratio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3 * ratio;
    context.strokeStyle = "#000";
    context.fillStyle = "#fff";
    const places = [[inset, height / 2], [width - inset, height / 2], [width / 2, inset], [width / 2, height - inset]];
    places.forEach(([x, y], i) => {
      context.strokeText(this.plane.letters[i], x, y);
      context.fillText(this.plane.letters[i], x, y);
    });
  }
}
