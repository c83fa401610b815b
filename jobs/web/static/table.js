// The hosts as a table, with the map's hosts and filter. Only the rows in sight are in the document.
import { html, nothing, render } from './vendor/lit-html/lit-html.js';
import { fleet, get, getJson } from './feed.js';
import { show, shown } from './address.js';
import { clean, count, duration, gibibytes, mebibytes, percent } from './text.js';

const ROW = 28, MORE = 8;
const COLUMNS = [
  ['name', 'host', (r) => html`<bdi>${clean(r.name)}</bdi>`], ['zone', 'zone', (r) => html`<bdi>${clean(r.zone)}</bdi>`],
  ['reason', 'out because', (r) => (r.reason ? html`<bdi class="hot">${clean(r.reason)}</bdi>` : '')],
  ['vcpus_free', 'VCPUs free', (r) => of(r.vcpus_free, r.vcpus_capacity, count), 1], ['vcpus_free_min', 'least', (r) => count(r.vcpus_free_min), 1],
  ['memory_mb_free', 'memory free', (r) => of(r.memory_mb_free, r.memory_mb_capacity, mebibytes), 1], ['memory_mb_available', 'measured', (r) => mebibytes(r.memory_mb_available), 1],
  ['disk_gb_free', 'disk free', (r) => of(r.disk_gb_free, r.disk_gb_capacity, gibibytes), 1],
  ['cpu_utilization', 'CPU', (r) => percent(r.cpu_utilization), 1], ['cpu_steal', 'steal', (r) => percent(r.cpu_steal), 1],
  ['memory_pressure', 'memory pressure', (r) => percent(r.memory_pressure), 1], ['instances', 'instances', (r) => count(r.instances), 1],
  ['claims', 'claims', (r) => count(r.claims), 1], ['age', 'age', (r) => duration(r.age), 1], ['source', 'source', (r) => clean(r.source)],
];
// A phone has room for four.
const narrow = matchMedia('(max-width: 600px)'), FIRST = ['name', 'vcpus_free', 'memory_mb_free', 'reason'];
const columns = () => (narrow.matches ? [...FIRST.map((name) => COLUMNS.find((column) => column[0] === name)), ...COLUMNS.filter(([name]) => !FIRST.includes(name))] : COLUMNS);
const of = (free, all, unit) => (free == null ? '–' : html`${unit(free)}<span class="soft"> / ${unit(all)}</span>`);

export class HostTable {
  constructor(element, { onOpen, passes, onSay }) {
    Object.assign(this, { element, onOpen, passes, onSay, order: [], slots: [], rows: new Map(), cursor: 0, ordered: 0 });
  }

  get descending() { return shown.sort.startsWith('-'); }
  get by() { return shown.sort.replace(/^-/, ''); }

  /** Sorts anew now and then: rows that jump help nobody. */
  async sort(force = false) {
    if (!force && Date.now() - this.ordered < 10000) return;
    this.ordered = Date.now();
    this.order = new Uint32Array(await (await get('/api/order', { by: this.by, descending: this.descending ? 1 : null })).arrayBuffer());
  }

  async refresh(force = false) {
    if (this.refreshing) { this.again ||= force; return; }
    this.refreshing = true;
    try {
      await this.sort(force);
      const slots = [];
      for (const slot of this.order) if (slot < fleet.hosts && this.passes(slot)) slots.push(slot);
      this.slots = slots;
      this.cursor = Math.max(0, Math.min(this.cursor, slots.length - 1));
      await this.fetchRows();
    } catch { /* the head says what is wrong */ } finally { this.refreshing = false; }
    this.draw();
    if (this.again) { this.again = false; this.refresh(true); }
  }

  get window() {
    const box = this.element.querySelector('.scroll'), first = Math.max(0, Math.floor((box?.scrollTop ?? 0) / ROW) - MORE);
    return [first, Math.min(this.slots.length, first + Math.ceil((box?.clientHeight || innerHeight) / ROW) + 2 * MORE)];
  }

  async fetchRows() {
    const [first, last] = this.window, wanted = this.slots.slice(first, last);
    if (wanted.length) this.rows = new Map((await getJson('/api/rows', { slots: wanted.join(',') })).map((row) => [row.slot, row]));
  }

  async scrolled() {
    this.draw();
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.fetchRows().then(() => this.draw(), () => {}), 60);
  }

  draw() {
    const [first, last] = this.window, all = this.slots.length, shownColumns = columns();
    const head = ([name, label, , right]) => html`<th scope="col" class=${right ? 'n' : ''} aria-sort=${this.by === name ? (this.descending ? 'descending' : 'ascending') : nothing}><button @click=${() => this.sortBy(name)}>${label}<span aria-hidden="true">${this.by === name ? (this.descending ? ' ▾' : ' ▴') : ''}</span></button></th>`;
    const line = (slot, i) => {
      const row = this.rows.get(slot);
      return html`<tr aria-rowindex=${i + 2} class=${i === this.cursor ? 'cursor' : ''} @click=${() => { this.cursor = i; this.onOpen(slot); }}>${shownColumns.map(([, , cell, right]) => html`<td class=${right ? 'n' : ''}>${row ? cell(row) : ''}</td>`)}</tr>`;
    };
    render(html`<div class="bar"><p>${count(all)} of ${count(fleet.summary?.hosts)} hosts${all < (fleet.summary?.hosts ?? 0) ? ', as the filter says' : ''}</p><a href="/hosts.csv" download>all as CSV</a></div>
      <div class="scroll" tabindex="0" role="region" aria-label="Hosts; arrow keys move, Enter opens one" @scroll=${() => this.scrolled()} @keydown=${(e) => this.key(e)}>
      <table class="hosts" aria-rowcount=${all + 1}><caption class="unseen">Hosts</caption><thead><tr aria-rowindex="1">${shownColumns.map(head)}</tr></thead><tbody>
      <tr class="space" aria-hidden="true"><td colspan=${COLUMNS.length}><svg width="1" height=${first * ROW}></svg></td></tr>
      ${this.slots.slice(first, last).map((slot, i) => line(slot, first + i))}
      <tr class="space" aria-hidden="true"><td colspan=${COLUMNS.length}><svg width="1" height=${(all - last) * ROW}></svg></td></tr></tbody></table></div>`, this.element);
  }

  sortBy(name) {
    show({ sort: this.by === name && !this.descending ? `-${name}` : name });
    this.cursor = 0;
    this.element.querySelector('.scroll').scrollTop = 0;
    this.refresh(true);
  }

  key(event) {
    const box = event.currentTarget, page = Math.max(1, Math.floor(box.clientHeight / ROW) - 2);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.slots.length, End: this.slots.length };
    if (event.target !== box) return;
    if (event.key === 'Enter' && this.slots.length) return this.onOpen(this.slots[this.cursor]);
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.cursor = Math.max(0, Math.min(this.slots.length - 1, this.cursor + moves[event.key]));
    const top = this.cursor * ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + 2 * ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + 2 * ROW - box.clientHeight;
    this.scrolled();
    this.onSay(this.slots[this.cursor]);
  }
}
