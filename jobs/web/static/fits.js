// What fits? A request, tried on the live table; nothing is claimed.
import { html, nothing, render } from './vendor/lit-html/lit-html.js';
import { fleet, get, getJson } from './feed.js';
import { show, shown } from './address.js';
import { FITS, dimensionColour } from './colours.js';
import { clean, count, dimension, percent } from './text.js';

const LIMITS = [['max_cpu_utilization', 'CPU utilisation'], ['max_cpu_steal', 'CPU steal'], ['max_cpu_pressure', 'CPU pressure'], ['max_memory_pressure', 'memory pressure'], ['max_io_pressure', 'I/O pressure']];
const LISTS = [['required', 'required traits', 'traits'], ['forbidden', 'forbidden traits', 'traits'], ['aggregates', 'in one of these aggregates', 'aggregates'], ['include', 'only these hosts'], ['avoid', 'none of these hosts']];
const split = (text) => text.split(/[\s,]+/).filter(Boolean);

export class Fits {
  constructor(element, { onAnswer, onOpen, onOnly }) {
    Object.assign(this, { element, onAnswer, onOpen, onOnly, answer: null, error: null, busy: false, pools: [], request: { vcpus: 4, memory_mb: 8192, disk_gb: 40 } });
    if (shown.request) try { this.request = JSON.parse(shown.request); } catch { /* an address that somebody has cut */ }
  }

  /** Asks once the fleet is there, if the address holds a request. */
  begin() {
    getJson('/api/pools').then((names) => { this.pools = names; this.draw(); }, () => {});
    if (shown.request) this.ask();
  }

  completions() {
    const traits = new Set(), aggregates = new Set();
    for (const list of new Set(fleet.traits)) list?.forEach((t) => traits.add(t));
    for (const list of new Set(fleet.aggregates)) list?.forEach((a) => aggregates.add(a));
    return { traits: [...traits].sort(), aggregates: [...aggregates].sort(), zones: [...fleet.zones].sort(), pools: this.pools };
  }

  draw() {
    const r = this.request, known = this.completions();
    const list = (name, values) => html`<datalist id="known-${name}">${values.slice(0, 500).map((v) => html`<option value=${v}></option>`)}</datalist>`;
    const field = (name, label, value, attributes = {}) => html`<label class=${attributes.wide ? 'wide' : ''}>${label}<input name=${name} .value=${String(value ?? '')} type=${attributes.type ?? 'text'} min=${attributes.type ? 0 : nothing} max=${attributes.max ?? nothing} step=${attributes.step ?? nothing} list=${attributes.list ? `known-${attributes.list}` : nothing} placeholder=${attributes.placeholder ?? nothing} autocomplete="off" spellcheck="false"></label>`;
    const more = ['any_of', 'forbidden', 'include', 'avoid', 'near', 'numa', 'pci', 'resources', 'strategy', 'min_memory_mb_available', ...LIMITS.map(([n]) => n)].some((n) => r[n]);
    render(html`<h2 id="fits-title">What fits?</h2>
      <form @submit=${(e) => { e.preventDefault(); this.request = this.read(e.target); this.ask(); }}>
        ${field('vcpus', 'VCPUs', r.vcpus, { type: 'number' })}${field('memory_gib', 'memory, GiB', (r.memory_mb ?? 0) / 1024, { type: 'number', step: 'any' })}${field('disk_gb', 'disk, GiB', r.disk_gb, { type: 'number' })}
        ${field('required', 'required traits', (r.required ?? []).join(' '), { wide: true, list: 'traits', placeholder: 'HW_CPU_X86_AVX2 …' })}
        ${field('zone', 'zone', r.zone, { list: 'zones' })}
        <label class="two">strategy<select name="strategy"><option value="">as set: ${fleet.meta?.strategy ?? 'spread'}</option>${['spread', 'pack', 'random'].map((s) => html`<option ?selected=${r.strategy === s}>${s}</option>`)}</select></label>
        <details class="wide" ?open=${more}><summary>devices, cells, aggregates, limits</summary><div class="grid">
          ${field('any_of', 'any of these traits; groups parted by ;', (r.any_of ?? []).map((g) => g.join(' ')).join('; '), { wide: true, list: 'traits' })}
          ${LISTS.slice(1).map(([name, label, known]) => field(name, label, (r[name] ?? []).join(' '), { wide: true, list: known }))}
          ${field('near', 'near this storage pool', r.near, { wide: true, list: 'pools' })}
          ${field('pci', 'PCI devices, parted by blanks', (r.pci ?? []).map(pciText).join(' '), { wide: true, placeholder: '10de:20b5,count=2,same_cell' })}
          ${field('resources', 'other resource classes', pairsText(r.resources), { wide: true, placeholder: 'CUSTOM_LICENCE=1' })}
          ${field('numa_cpus', 'CPUs to pin', r.numa?.cpus, { type: 'number' })}<label class="two">huge pages, KiB=count<input name="numa_pages" .value=${pairsText(r.numa?.pages)} placeholder="2048=1024" autocomplete="off" spellcheck="false"></label>
          ${LIMITS.map(([name, label]) => field(name, `${label} ≤`, r[name], { type: 'number', step: '0.01', max: 1 }))}
          ${field('min_memory_mb_available', 'MiB to stay', r.min_memory_mb_available, { type: 'number' })}
        </div></details>
        ${list('traits', known.traits)}${list('aggregates', known.aggregates)}${list('zones', known.zones)}${list('pools', known.pools)}
        <div class="go"><button class="primary" ?disabled=${this.busy}>${this.busy ? 'Looking …' : 'Try on the live table'}</button>
        ${this.answer || this.error ? html`<button type="button" @click=${() => this.clear()}>Clear</button>` : nothing}</div>
      </form>
      <div aria-live="polite">${this.error ? html`<p class="hot">${clean(this.error)}</p>` : this.answer ? this.found() : html`<p class="soft">Nothing is claimed: it says what a scheduler would get now.</p>`}</div>`, this.element);
  }

  read(form) {
    const f = new FormData(form), text = (name) => f.get(name).trim(), request = {};
    const number = (name) => (text(name) === '' ? undefined : Number(text(name)));
    const set = (name, value) => { if (value !== undefined && value !== '' && value !== 0 && !(Array.isArray(value) && !value.length)) request[name] = value; };
    set('vcpus', number('vcpus'));
    set('memory_mb', Math.round((number('memory_gib') ?? 0) * 1024));
    set('disk_gb', number('disk_gb'));
    for (const [name] of LISTS) set(name, split(text(name)));
    set('any_of', text('any_of').split(';').map(split).filter((group) => group.length));
    for (const name of ['zone', 'near', 'strategy']) set(name, text(name));
    set('pci', text('pci').split(/\s+/).filter(Boolean).map(pci));
    const resources = pairs(text('resources')), pages = pairs(text('numa_pages')), cpus = number('numa_cpus');
    if (Object.keys(resources).length) request.resources = resources;
    if (cpus || Object.keys(pages).length) request.numa = { ...(cpus ? { cpus } : {}), ...(Object.keys(pages).length ? { pages } : {}) };
    for (const [name] of LIMITS) if (number(name) !== undefined) request[name] = number(name);
    set('min_memory_mb_available', number('min_memory_mb_available'));
    return request;
  }

  async ask() {
    this.busy = true;
    this.error = null;
    show({ request: JSON.stringify(this.request) });
    this.draw();
    try {
      const bytes = await (await get('/api/fits', { request: JSON.stringify(this.request) })).arrayBuffer(), size = new DataView(bytes).getUint32(0, true);
      this.answer = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)));
      this.answer.codes = new Uint8Array(bytes, 4 + size);
      this.answer.at = Date.now();
    } catch (error) {
      this.answer = null;
      this.error = error.message;
    }
    this.busy = false;
    this.onAnswer(this.answer);
    this.draw();
  }

  clear() {
    this.answer = this.error = null;
    show({ request: '' });
    this.onAnswer(null);
    this.draw();
  }

  found() {
    const a = this.answer, name = (slot, otherwise) => clean(fleet.names[slot] ?? otherwise);
    return html`<p class="answer"><b>${count(a.fits)}</b> of ${count(a.hosts)} hosts fit</p>
      ${a.dimensions.length ? html`<table class="dimensions"><caption class="unseen">What rules the others out</caption><thead><tr><th scope="col">ruled out first by</th><th scope="col" class="n">hosts</th><th scope="col" class="n" title="Hosts that nothing else rules out: what would fit without it">by it alone</th></tr></thead>
      <tbody>${a.dimensions.map((d, i) => html`<tr><td><button class="link" @click=${() => this.onOnly(i + 1)} title="show these hosts alone">${swatch(dimensionColour(d.name))}${dimension(d.name)}</button></td><td class="n">${count(d.first)}</td><td class="n">${d.alone ? html`<b>${count(d.alone)}</b>` : '–'}</td></tr>`)}</tbody></table>` : nothing}
      ${a.refusal ? refusal(a.refusal, this.onOpen) : nothing}
      ${a.best.length ? html`<h3>The best of them</h3><ol class="best">${a.best.map((h) => html`<li><button class="link" @click=${() => this.onOpen(h.slot, h.host_id)}><bdi>${name(h.slot, h.host_name)}</bdi></button><span class="n" title="its score">${signed(h.score)}</span><small class="soft">${terms(h.terms)}</small></li>`)}</ol>
      <p class="soft">A scheduler looks at a sample and takes the best of it.</p>` : nothing}
      <details><summary>The same elsewhere</summary>${copyable(a.command)}${copyable(JSON.stringify(a.json))}${copyable(a.python)}</details>`;
  }
}

const swatch = (colour) => html`<svg class="swatch" width="10" height="10" aria-hidden="true"><rect width="10" height="10" fill=${colour}></rect></svg>`;
export const fitsSwatch = () => swatch(FITS);

function refusal(r, onOpen) {
  if (r.dimension === 'hosts') return html`<p class="hot">The table has no hosts.</p>`;
  const near = r.nearest, amount = (x) => Number(x.toPrecision(6)).toLocaleString('en');
  return html`<p>Ran out: <b>${dimension(r.dimension)}</b>. Nearest: <button class="link" @click=${() => onOpen(near.slot, near.host_id)}><bdi>${clean(near.name)}</bdi></button>${near.had != null && r.requested != null ? html` with ${amount(near.had)} for ${amount(r.requested)}` : nothing}.</p>`;
}

const PLAIN = { vcpus: 'VCPUs', memory_mb: 'memory', disk_gb: 'disk' };
/** A score in words: what decides, then load and age. */
export function terms(t) {
  if (!t) return '';
  const parts = [];
  if (t.decides) parts.push(`${PLAIN[t.decides]} would be ${percent(t.used[t.decides])} in use (${signed(t.room)})`);
  if (t.strategy !== 'random') {
    const busiest = t.busiest ? t.busiest.replace(/_/g, ' ').replace('cpu', 'CPU').replace('io ', 'I/O ').replace('utilization', 'utilisation') : 'not all of it known';
    parts.push(`load ${signed(t.load)} (${busiest})`, `age ${signed(t.age)}`);
  } else parts.push('by chance');
  return parts.join(' · ');
}
const signed = (x) => (x > 0 ? '+' : '') + x.toFixed(3).replace(/^-0\.000$/, '0.000').replace('-', '−');

export function copyable(text) {
  const copy = async (event) => {
    const button = event.currentTarget;
    try { await navigator.clipboard.writeText(text); button.textContent = 'copied'; }
    catch { getSelection().selectAllChildren(button.previousElementSibling); button.textContent = 'press Ctrl-C'; }
  };
  return html`<p class="copy"><code>${text}</code><button @click=${copy} aria-label="Copy">copy</button></p>`;
}

const pairsText = (pairs) => Object.entries(pairs ?? {}).map(([k, v]) => `${k}=${v}`).join(' ');
const pairs = (text) => Object.fromEntries(split(text).map((p) => { const i = p.indexOf('='); return [p.slice(0, i < 0 ? p.length : i), i < 0 ? p : Number(p.slice(i + 1))]; }));
function pci(text) {
  const [ids, ...rest] = text.split(','), [vendor, product] = ids.split(':'), demand = {};
  if (vendor) demand.vendor_id = vendor;
  if (product) demand.product_id = product;
  for (const part of rest) {
    const i = part.indexOf('='), name = i < 0 ? part : part.slice(0, i), value = part.slice(i + 1);
    if (part === 'same_cell') demand.same_cell = true;
    else if (name === 'count' || name === 'numa_node') demand[name] = Number(value);
    else demand.tags = { ...demand.tags, [name]: value };
  }
  return demand;
}
function pciText(d) {
  const parts = [`${d.vendor_id ?? ''}:${d.product_id ?? ''}`];
  if (d.count > 1) parts.push(`count=${d.count}`);
  if (d.numa_node != null) parts.push(`numa_node=${d.numa_node}`);
  if (d.same_cell) parts.push('same_cell');
  return [...parts, ...Object.entries(d.tags ?? {}).map(([k, v]) => `${k}=${v}`)].join(',');
}
