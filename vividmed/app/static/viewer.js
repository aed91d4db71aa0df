// The scan in NiiVue, and an overlay into which findings are drawn. Voxels are counted as in the file: x fastest.

const { Niivue, SLICE_TYPE, SHOW_RENDER } = window.niivue;

const PLANES = {
  "three planes": SLICE_TYPE.MULTIPLANAR,
  axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL,
  rendering: SLICE_TYPE.RENDER,
};
export const planeNames = (isVolume) => (isVolume ? Object.keys(PLANES) : ["axial"]);

async function inflate(base64) {
  const packed = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function describePlace({ mm, values }) {
  const place = [...mm].slice(0, 3).map((value) => value.toFixed(1)).join(", ");
  const value = values?.[0]?.value;
  return `${place} mm (right, anterior, superior)${Number.isFinite(value) ? `: ${Number(value.toPrecision(4))}` : ""}`;
}

export class Viewer {
  constructor(canvas, onPlace) {
    this.nv = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.3, 0.8, 1, 0.8],
      // The patient's right and front on the left, as on all exported pictures.
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      show3Dcrosshair: true,
      // Letters of the directions, which the defaults draw small and grey.
      fontColor: [1, 1, 1, 1],
      fontMinPx: 20,
      multiplanarShowRender: SHOW_RENDER.NEVER,
      dragAndDropEnabled: false,
      loadingText: "",
      logLevel: "error",
    });
    this.nv.onLocationChange = (place) => onPlace(describePlace(place));
    this.ready = this.nv.attachToCanvas(canvas);
    canvas.addEventListener("keydown", (event) => this.move(event));
  }

  async show(image, overlay) {
    await this.ready;
    const urls = [image, overlay].map((blob) => URL.createObjectURL(blob));
    try {
      await this.nv.loadVolumes([
        { url: urls[0], name: "image.nii.gz", colormap: "gray" },
        { url: urls[1], name: "overlay.nii.gz", opacity: 0.5 },
      ]);
    } finally {
      urls.forEach((url) => URL.revokeObjectURL(url));
    }
    this.nv.createOnLocationChange();
  }

  setPlanes(name) {
    this.nv.setSliceType(PLANES[name]);
  }

  setWindow(level, width) {
    const [image] = this.nv.volumes;
    image.cal_min = level - width / 2;
    image.cal_max = level + width / 2;
    this.nv.updateGLVolume();
  }

  setOpacity(value) {
    this.nv.setOpacity(1, value);
  }

  setCrosshair(isShown) {
    this.nv.setCrosshairWidth(isShown ? 1 : 0);
    this.nv.drawScene();
  }

  // Draws phrases, large ones first, and shows nothing else in the overlay.
  async draw(phrases, size) {
    const overlay = this.nv.volumes[1];
    if (!overlay) return;
    overlay.img.fill(0);
    const extent = (phrase) => phrase.extent ?? 0;
    for (const phrase of [...phrases].sort((one, other) => extent(other) - extent(one))) {
      if (phrase.mask) await drawMask(overlay.img, phrase, size);
      for (const box of phrase.boxes) drawBox(overlay.img, phrase.number, box, size);
    }
    const colours = [[0, 0, 0, 0], ...phrases.map((phrase) => [...phrase.colour, 255])];
    overlay.setColormapLabel({
      R: colours.map((colour) => colour[0]),
      G: colours.map((colour) => colour[1]),
      B: colours.map((colour) => colour[2]),
      A: colours.map((colour) => colour[3]),
      I: [0, ...phrases.map((phrase) => phrase.number)],
      labels: ["", ...phrases.map((phrase) => phrase.text)],
    });
    this.nv.updateGLVolume();
  }

  // Moves the cross-hair to a voxel (z, y, x).
  goTo([z, y, x], affine) {
    const mm = affine.slice(0, 3).map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]);
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm);
    this.nv.drawScene();
    this.nv.createOnLocationChange();
  }

  move(event) {
    const steps = {
      ArrowLeft: [-1, 0, 0],
      ArrowRight: [1, 0, 0],
      ArrowUp: [0, 1, 0],
      ArrowDown: [0, -1, 0],
      PageUp: [0, 0, 1],
      PageDown: [0, 0, -1],
    };
    const step = steps[event.key];
    if (!step || !this.nv.volumes.length) return;
    event.preventDefault();
    event.stopPropagation();
    this.nv.moveCrosshairInVox(...step);
  }
}

async function drawMask(voxels, phrase, [, height, width]) {
  const [z0, y0, x0, z1, y1, x1] = phrase.mask.box;
  const bits = await inflate(phrase.mask.data);
  let bit = 0;
  for (let z = z0; z < z1; z++)
    for (let y = y0; y < y1; y++)
      for (let x = x0; x < x1; x++, bit++)
        if (bits[bit >> 3] & (128 >> (bit & 7))) voxels[(z * height + y) * width + x] = phrase.number;
}

// The faces of a box in a volume, its frame in a 2D image.
function drawBox(voxels, number, box, [depth, height, width]) {
  const [z0, y0, x0] = box.slice(0, 3).map(Math.floor);
  const [z1, y1, x1] = box.slice(3).map(Math.ceil);
  const thick = Math.max(1, Math.round(Math.max(height, width) / 256));
  for (let z = z0; z < z1; z++)
    for (let y = y0; y < y1; y++)
      for (let x = x0; x < x1; x++) {
        const edge = Math.min(y - y0, y1 - 1 - y, x - x0, x1 - 1 - x) < thick;
        if (edge || (depth > 1 && (z === z0 || z === z1 - 1)))
          voxels[(z * height + y) * width + x] = number;
      }
}
