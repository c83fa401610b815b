// The map: a canvas on which each host is a cell. A group is a strip as wide as its hosts are many; within it the hosts are
// sorted by what is painted, so that height reads as a percentile and groups compare at a glance. Beyond 40 groups: blocks.

import { fleet } from './feed.js';
import { GONE, OUT, PAINTS, UNKNOWN, levelsOf, palette } from './colours.js';
import { clean } from './text.js';

const MAX_STRIPS = 40, MAX_CELL = 64;

export class FleetMap {
  constructor(canvas, labels) {
    Object.assign(this, { canvas, labels, paint: 'vcpus_free', answer: null, only: null, cursor: -1, held: false, groups: [], groupOf: null, scale: 1 });
    this.context = canvas.getContext('2d', { alpha: false });
    this.resized();
  }

  /** Groups hosts: for each slot the number of its group, 65535 for none; and the groups' names. */
  group(groupOf, names) {
    this.groupOf = groupOf;
    this.groups = names;
    this.laidOut = false;
  }

  resized() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    this.scale = devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.floor(box.width * this.scale));
    this.canvas.height = Math.max(1, Math.floor(box.height * this.scale));
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.laidOut = false;
  }

  restyled() { this.colours = null; }

  /** One code a host: its level, 239 where that is not known, 240 + its state where it is out. */
  codes() {
    const n = fleet.hosts, state = fleet.plane('state');
    if (this.code?.length !== n) { this.code = new Uint8Array(n); this.slots = new Uint32Array(n); this.placeOf = new Uint32Array(n); this.held = false; }
    const code = this.code;
    if (this.paint === 'fits') {
      const found = this.answer.codes;
      for (let i = 0; i < n; i++) code[i] = state[i] === GONE ? OUT + GONE : i < found.length && found[i] !== 255 ? found[i] : UNKNOWN;
      return;
    }
    const level = fleet.plane(this.paint), last = levelsOf(this.paint) - 1, byAge = this.paint === 'age';
    for (let i = 0; i < n; i++) {
      const s = state[i], out = byAge ? s === 1 || s === 2 || s > 4 : s !== 0, v = level[i];
      code[i] = out ? OUT + s : v === 255 ? UNKNOWN : v > last ? last : v;
    }
  }

  /** Slots by group, and within a group by code: a counting sort, so that hosts of one code keep their order. */
  sort() {
    const n = fleet.hosts, groups = this.groups.length, { code, groupOf, slots, placeOf } = this;
    const upwards = this.paint !== 'fits' && PAINTS[this.paint].free, rank = new Uint8Array(256);
    // Out on top, then what is full or busy; free lies at the bottom. Of an answer: what fits lies at the bottom.
    for (let i = 0; i < 256; i++) rank[i] = i >= OUT ? i - OUT : i === UNKNOWN ? 8 : upwards ? 9 + i : 255 - i;
    const counts = new Uint32Array(groups * 256 + 1);
    for (let i = 0; i < n; i++) if (groupOf[i] !== 65535) counts[groupOf[i] * 256 + rank[code[i]] + 1]++;
    for (let i = 0; i < groups * 256; i++) counts[i + 1] += counts[i];
    this.start = Uint32Array.from({ length: groups + 1 }, (_, g) => counts[g * 256]);
    const next = counts.slice();
    for (let i = 0; i < n; i++) if (groupOf[i] !== 65535) { const place = next[groupOf[i] * 256 + rank[code[i]]]++; slots[place] = i; placeOf[i] = place; }
  }

  layOut() {
    const { scale } = this, W = this.canvas.width, H = this.canvas.height, gap = Math.round(10 * scale), head = Math.round(22 * scale), most = MAX_CELL * scale;
    const sizes = this.groups.map((_, g) => this.start[g + 1] - this.start[g]), total = sizes.reduce((a, b) => a + b, 0);
    this.boxes = [];
    if (!total) return this.label();
    const box = (x, y, n, columns, rows, fx, fy) => ({
      x, y, n, columns, rows, fx, fy, width: columns * fx,
      // Where each column and row begins: whole pixels, so that strips fill the stage to its edges.
      xs: Int32Array.from({ length: columns + 1 }, (_, k) => Math.round(k * fx)), ys: Int32Array.from({ length: rows + 1 }, (_, k) => Math.round(k * fy)),
    });
    if (sizes.length <= MAX_STRIPS) {
      const h = H - head, w = W - gap * (sizes.length - 1), rows = Math.max(1, Math.round(Math.sqrt((total * h) / Math.max(1, w))));
      const columns = sizes.map((n) => Math.max(1, Math.round(n / rows))), fx = Math.min(most, w / columns.reduce((a, b) => a + b, 0));
      let x = 0;
      sizes.forEach((n, g) => {
        const r = Math.max(1, Math.ceil(n / columns[g]));
        this.boxes.push(box(Math.round(x), head, n, columns[g], r, fx, Math.min(most, h / r)));
        x += columns[g] * fx + gap;
      });
    } else {
      for (let pitch = Math.round(most); pitch >= 1 && !this.boxes.length; pitch--) this.boxes = this.shelves(sizes, pitch, W, H, gap, head, box);
    }
    this.label();
  }

  /** Blocks, shelf by shelf; none where they do not fit. */
  shelves(sizes, pitch, W, H, gap, head, box) {
    const boxes = [];
    let x = 0, y = head, shelf = 0;
    for (const n of sizes) {
      const columns = Math.max(1, Math.ceil(Math.sqrt(n * 1.5))), rows = Math.max(1, Math.ceil(n / columns));
      if (x && x + columns * pitch > W) { x = 0; y += shelf + head; shelf = 0; }
      boxes.push(box(x, y, n, columns, rows, pitch, pitch));
      x += Math.max(columns * pitch, 40 * this.scale) + gap;
      shelf = Math.max(shelf, rows * pitch);
      if (pitch > 1 && (y + shelf > H || columns * pitch > W)) return [];
    }
    return boxes;
  }

  label() {
    const { scale } = this;
    this.labels.replaceChildren(...this.boxes.map((b, g) => {
      const label = document.createElement('span'), number = document.createElement('small'), name = document.createElement('bdi');
      const right = g + 1 < this.boxes.length && this.boxes[g + 1].y === b.y ? this.boxes[g + 1].x : this.canvas.width;
      name.textContent = clean(this.groups[g]) || 'none';
      number.textContent = b.width > 100 * scale || b.n < 1000 ? b.n.toLocaleString('en') : `${Math.round(b.n / 1000)}k`;
      label.append(name, ' ', number);
      label.title = `${name.textContent}: ${b.n.toLocaleString('en')} hosts`;
      Object.assign(label.style, { left: `${b.x / scale}px`, top: `${b.y / scale - 20}px`, maxWidth: `${(right - b.x) / scale - 1}px` });
      return label;
    }));
  }

  draw() {
    if (!fleet.hosts || !this.groupOf || this.groupOf.length !== fleet.hosts) return;
    this.codes();
    if (!this.held || !this.start || this.start.length !== this.groups.length + 1 || !this.laidOut) this.sort();
    if (!this.laidOut) { this.layOut(); this.laidOut = true; }
    const light = matchMedia('(prefers-color-scheme: light)').matches, theme = document.documentElement.dataset.theme;
    this.colours ??= palette(this.paint, this.answer?.dimensions, theme ? theme === 'light' : light);
    const { pixels, slots, code, only } = this, lut = this.colours.pixels, W = this.canvas.width;
    pixels.fill(this.colours.back);
    this.boxes.forEach((b, g) => {
      const { xs, ys, columns } = b, first = this.start[g], gx = b.fx >= 5 ? 1 : 0, gy = b.fy >= 5 ? 1 : 0;
      let column = 0, row = 0;
      for (let i = 0; i < b.n; i++) {
        const c = code[slots[first + i]], colour = lut[only && !only.has(c) ? 256 + c : c];
        const x = b.x + xs[column], width = xs[column + 1] - gx - xs[column], bottom = ys[row + 1] - gy;
        for (let y = ys[row], o = (b.y + y) * W + x; y < bottom; y++, o += W) for (let k = 0; k < width; k++) pixels[o + k] = colour;
        if (++column === columns) { column = 0; row++; }
      }
    });
    this.context.putImageData(this.image, 0, 0);
    if (this.cursor >= 0) this.ring();
  }

  locate(slot) {
    if (!this.start || slot >= fleet.hosts || this.groupOf[slot] === 65535) return null;
    const g = this.groupOf[slot], b = this.boxes[g];
    if (!b) return null;
    const i = this.placeOf[slot] - this.start[g];
    return { g, b, i, column: i % b.columns, row: Math.floor(i / b.columns) };
  }

  ring() {
    const at = this.locate(this.cursor);
    if (!at) return;
    const { b, column, row } = at, s = this.scale, more = Math.max(0, (8 * s - b.fx) / 2), c = this.context;
    const x = b.x + b.xs[column] - more, y = b.y + b.ys[row] - more, w = b.xs[column + 1] - b.xs[column] + 2 * more, h = b.ys[row + 1] - b.ys[row] + 2 * more;
    c.lineWidth = 2 * s;
    c.strokeStyle = '#000';
    c.strokeRect(x - 3 * s, y - 3 * s, w + 6 * s, h + 6 * s);
    c.strokeStyle = '#fff';
    c.strokeRect(x - s, y - s, w + 2 * s, h + 2 * s);
  }

  /** The slot at a point of the stage, -1 where there is none. */
  at(x, y) {
    x *= this.scale;
    y *= this.scale;
    for (const [g, b] of (this.boxes ?? []).entries()) {
      if (x < b.x || x >= b.x + b.width || y < b.y || y >= b.y + b.rows * b.fy) continue;
      const column = Math.min(b.columns - 1, Math.floor((x - b.x) / b.fx)), row = Math.floor((y - b.y) / b.fy), i = row * b.columns + column;
      if (i < b.n) return this.slots[this.start[g] + i];
    }
    return -1;
  }

  /** Where a slot lies on the stage: the middle of its cell, in CSS pixels. */
  where(slot) {
    const at = this.locate(slot);
    if (!at) return null;
    const { b, column, row } = at;
    return { x: (b.x + (column + 0.5) * b.fx) / this.scale, y: (b.y + (row + 0.5) * b.fy) / this.scale };
  }

  /** The next slot in a direction. */
  step(slot, dx, dy) {
    const at = this.locate(slot);
    if (!at) return this.slots?.[0] ?? -1;
    const { g, b, i, column, row } = at;
    if (dx && column + dx >= 0 && column + dx < b.columns && i + dx < b.n) return this.slots[this.start[g] + i + dx];
    if (dy) { const next = i + dy * b.columns; return next >= 0 && next < b.n ? this.slots[this.start[g] + next] : slot; }
    // Into the group beside it, at the same height.
    for (let to = g + dx; to >= 0 && to < this.boxes.length; to += dx) {
      const other = this.boxes[to];
      if (!other.n) continue;
      const r = Math.min(other.rows - 1, row), place = Math.min(other.n - 1, r * other.columns + (dx > 0 ? 0 : other.columns - 1));
      return this.slots[this.start[to] + place];
    }
    return slot;
  }

  /** How many hosts have each code. */
  histogram() {
    const counts = new Uint32Array(256), code = this.code ?? [];
    for (let i = 0; i < code.length; i++) counts[code[i]]++;
    return counts;
  }
}
