// The page: puts the parts together, keys, and what is said to whoever cannot see the map.
import { html, nothing, render, svg } from './vendor/lit-html/lit-html.js';
import { address, show, shown } from './address.js';
import { GONE, OUT, PAINTS, UNKNOWN, dimensionColour, levelsOf } from './colours.js';
import { choose, fleet, follow, getJson, on } from './feed.js';
import { Fits } from './fits.js';
import { head, state } from './head.js';
import { FleetMap } from './map.js';
import { clean, count, dimension, duration, gibibytes, mebibytes, percent } from './text.js';

const $ = (id) => document.getElementById(id), root = document.documentElement;
const map = new FleetMap($('map'), $('labels'));
let only = new Set(shown.only.split('.').filter(Boolean).map(Number)), found = null, page = { name: '', data: null, error: null };

const fits = new Fits($('fits'), { onAnswer: answered, onOpen: open, onOnly: (code) => filter(code, true) });
// What the first sight does not need is loaded when it is asked for.
let host = null, table = null, pages = null;
async function hostPanel() {
  const { HostPanel } = await import('./host.js');
  return (host ??= new HostPanel($('host'), { onClose: () => { map.cursor = -1; noHost(); draw(); }, request: () => fits.answer && fits.request }));
}
async function hostTable() {
  const { HostTable } = await import('./table.js');
  return (table ??= new HostTable($('page'), { onOpen: open, passes, onSay: say }));
}
const noHost = () => render(html`<h2 id="host-title">Host</h2><p class="soft">Click a host, or press <kbd>/</kbd> and type its name.</p>`, $('host'));
const refreshTable = (force) => { if (shown.view === 'table') hostTable().then((t) => t.refresh(force)); };

// --- what is painted, grouped and filtered -----------------------------------------------------------------------------

const GROUPS = { zone: 'zone', aggregate: 'aggregate', source: 'source', status: 'status', none: 'nothing' };
if (PAINTS[shown.paint]) { map.paint = shown.paint; choose(shown.paint); }

function group() {
  const n = fleet.hosts, of = new Uint16Array(n), state = fleet.plane('state');
  let names = [''];
  if (shown.group === 'zone') {
    const low = fleet.plane('zone'), high = fleet.plane('zone_high'), seen = [];
    for (let i = 0; i < n; i++) { of[i] = low[i] | (high[i] << 8); seen[of[i]] = true; }
    names = byName(of, seen.length, fleet.zones);
  } else if (shown.group === 'source') {
    of.set(fleet.plane('source'));
    names = byName(of, Math.max(1, fleet.sources.length), fleet.sources);
  } else if (shown.group === 'status') {
    names = fleet.meta.states.slice(0, GONE);
    of.set(state);
  } else if (shown.group === 'aggregate') {
    names = numbered(of, (i) => (fleet.aggregates[i] ?? []).map((a) => a.slice(0, 8)).join(' + '));
  } else if (shown.group.startsWith('trait:')) {
    const trait = shown.group.slice(6);
    names = [`has ${trait}`, 'has it not'];
    for (let i = 0; i < n; i++) of[i] = fleet.traits[i]?.includes(trait) ? 0 : 1;
  }
  for (let i = 0; i < n; i++) if (state[i] === GONE) of[i] = 65535;
  map.group(of, names);
}

/** Numbers groups anew in the order of their names; until names are there, as they are. */
function byName(of, groups, names) {
  if (!names.length) return Array.from({ length: groups }, () => '');
  const order = names.map((_, i) => i).sort((a, b) => (names[a] < names[b] ? -1 : 1)), place = new Uint16Array(Math.max(groups, names.length));
  order.forEach((number, i) => { place[number] = i; });
  for (let i = 0; i < of.length; i++) of[i] = place[of[i]];
  return order.map((number) => names[number]);
}

function numbered(of, nameOf) {
  const numbers = new Map();
  for (let i = 0; i < of.length; i++) { const name = nameOf(i); if (!numbers.has(name)) numbers.set(name, numbers.size); of[i] = numbers.get(name); }
  return byName(of, numbers.size, [...numbers.keys()]);
}

let grouped = '';
function draw() {
  if (!fleet.hosts || !fleet.summary) return;
  // Slots, names and states say who is in which group.
  const key = `${shown.group} ${fleet.hosts} ${fleet.version} ${shown.group === 'status' || fleet.summary.version !== fleet.version ? fleet.number : ''}`;
  if (key !== grouped) { grouped = key; group(); }
  map.only = only.size || found ? { has: (code) => !only.size || only.has(code) } : null;
  map.draw();
}

function filter(code, alone) {
  if (alone) only = only.size === 1 && only.has(code) ? new Set() : new Set([code]);
  else if (only.has(code)) only.delete(code);
  else only.add(code);
  show({ only: [...only].join('.') });
  draw();
  legend(true);
  refreshTable();
}

function passes(slot) {
  if (fleet.plane('state')[slot] === GONE) return false;
  if (only.size && !only.has(map.code?.[slot])) return false;
  return !found || found.has(slot);
}

function paint(name) {
  only = new Set();
  show(name === 'fits' ? { only: '' } : { only: '', paint: name });
  if (name !== 'fits' && name !== fleet.paint) { wanted = name; choose(name); } else painted(name);
}

let wanted = null; // what is painted as soon as its frame is there
function painted(name) {
  wanted = null;
  map.paint = name;
  map.restyled();
  map.held = false;
  draw();
  controls();
  legend(true);
}

function answered(answer) {
  map.answer = answer;
  if (answer) paint('fits');
  else if (map.paint === 'fits') paint(PAINTS[shown.paint] ? shown.paint : 'vcpus_free');
  host?.refresh(true);
  refreshTable();
}

// --- controls and legend -----------------------------------------------------------------------------------------------

function controls() {
  const traits = new Set();
  for (const list of new Set(fleet.traits)) list?.forEach((t) => traits.add(t));
  const option = (value, label, chosen) => html`<option value=${value} ?selected=${value === chosen}>${label}</option>`;
  render(html`<label>paint <select @change=${(e) => paint(e.target.value)}>${Object.entries(PAINTS).map(([name, p]) => option(name, p.label, map.paint))}${map.answer ? option('fits', 'what fits the request', map.paint) : nothing}</select></label>
    <label>group by <select @change=${(e) => { show({ group: e.target.value }); map.held = false; draw(); }}>${Object.entries(GROUPS).map(([name, label]) => option(name, label, shown.group))}
      ${traits.size ? html`<optgroup label="a trait">${[...traits].sort().slice(0, 300).map((t) => option(`trait:${t}`, clean(t), shown.group))}</optgroup>` : nothing}</select></label>
    <label>find <input id="find" type="search" placeholder="name or id, press /" size="20" spellcheck="false" .value=${shown.find} @input=${(e) => find(e.target.value)} @keydown=${findKey}></label><span id="matches" class="soft" role="status"></span>`, $('controls'));
}

let lastFind = 0;
async function find(text) {
  show({ find: text });
  const asked = ++lastFind;
  if (!text) {
    found = null;
  } else {
    const slots = await getJson('/api/find', { q: text }).catch(() => []);
    if (asked !== lastFind) return;
    found = new Set(slots);
    const exact = slots.find((slot) => fleet.names[slot] === text);
    map.cursor = exact ?? slots[0] ?? -1;
  }
  $('matches').textContent = found ? `${count(found.size)}${found.size === 1000 ? ' or more' : ''} found` : '';
  draw();
  refreshTable();
}
function findKey(event) {
  if (event.key === 'Enter' && map.cursor >= 0) open(map.cursor);
  if (event.key === 'Escape') { event.target.value = ''; find(''); map.cursor = -1; draw(); $('map').focus(); }
}

function range(paint, level) {
  if (paint === 'claims') return level === 15 ? '15 and more claims' : `${level} claims`;
  if (paint === 'drift') return level ? 'drifts' : 'agrees';
  const ages = fleet.meta.ages;
  if (paint === 'age') return level ? (level > 8 ? `older than ${duration(ages[8])}` : `${duration(ages[level - 1])} to ${duration(ages[level])} old`) : `younger than ${duration(ages[0])}`;
  const share = (x) => (PAINTS[paint].rare ? (x / 16) ** 2 : x / 16);
  return `${percent(share(level))} to ${percent(share(level + 1))}`;
}

let drawnLegend = 0;
function legend(now = false) {
  if (!fleet.hosts || !map.code || (!now && performance.now() - drawnLegend < 400)) return;
  drawnLegend = performance.now();
  const counts = map.histogram(), css = map.colours?.css ?? [], pressed = (code) => (only.size ? String(only.has(code)) : 'false');
  const key = (code, label) => html`<button class="key" aria-pressed=${pressed(code)} @click=${() => filter(code)}><svg class="swatch" width="12" height="12" aria-hidden="true"><rect width="12" height="12" fill=${css[code]}></rect></svg>${label} <b>${count(counts[code])}</b></button>`;
  const out = [1, 2, 3, 4, 5].filter((s) => counts[OUT + s] || only.has(OUT + s)).map((s) => key(OUT + s, fleet.meta.states[s]));
  const unknown = counts[UNKNOWN] || only.has(UNKNOWN) ? key(UNKNOWN, map.paint === 'fits' ? 'not looked at' : 'not known') : nothing;
  const all = only.size ? html`<button class="key" @click=${() => { only = new Set(); show({ only: '' }); draw(); legend(true); refreshTable(); }}>show all</button>` : nothing;
  if (map.paint === 'fits') {
    render(html`${key(0, 'fits')}${map.answer.dimensions.map((d, i) => key(i + 1, dimension(d.name)))}${unknown}${all}`, $('legend'));
    return;
  }
  const p = PAINTS[map.paint], levels = levelsOf(map.paint), most = Math.max(1, ...counts.subarray(0, levels)), size = 32;
  const bar = (code) => { const h = counts[code] ? Math.max(2, (counts[code] / most) * (size - 8)) : 0; return html`<button class="bar" aria-pressed=${pressed(code)} aria-label="${range(map.paint, code)}: ${count(counts[code])} hosts" title="${range(map.paint, code)}: ${count(counts[code])} hosts" @click=${() => filter(code)}><svg width="16" height=${size} aria-hidden="true">${svg`<rect x="0.5" y=${size - 8 - h} width="15" height=${h} fill=${css[code]}></rect><rect x="0.5" y=${size - 6} width="15" height="6" fill=${css[code]}></rect>`}</svg></button>`; };
  render(html`<span class="end">${p.low}</span><span class="bars">${Array.from({ length: levels }, (_, code) => bar(code))}</span><span class="end">${p.high}</span>${out}${unknown}${all}`, $('legend'));
}

// --- views -------------------------------------------------------------------------------------------------------------

const VIEWS = { fleet: 'Map', table: 'Table', claims: 'Claims', drift: 'Drift', letters: 'Dead letters', sources: 'Sources', freshness: 'Freshness' };
if (!VIEWS[shown.view]) shown.view = 'fleet';
if (innerWidth < 700 && !new URLSearchParams(location.search).has('view')) shown.view = 'table';

function view(name) {
  if (name !== shown.view) render(nothing, $('page')); // the table and the lists share a place
  show({ view: name });
  views();
  const hosts = name === 'fleet' || name === 'table';
  $('stage').hidden = name !== 'fleet';
  $('page').hidden = name === 'fleet';
  $('controls').hidden = $('legend').hidden = !hosts;
  $('work').setAttribute('aria-label', hosts ? 'Fleet' : VIEWS[name]);
  page = { name, data: null, error: null };
  if (name === 'fleet') { map.resized(); draw(); legend(true); } else if (name === 'table') { draw(); refreshTable(true); } else refreshPage();
}

function views() {
  render(html`${Object.entries(VIEWS).filter(([name]) => name !== 'letters' || fleet.meta?.kafka).map(([name, label]) => html`<a href=${address({ view: name })} aria-current=${name === shown.view ? 'page' : nothing} @click=${(e) => { if (e.ctrlKey || e.metaKey) return; e.preventDefault(); view(name); }}>${label}${name === 'drift' && fleet.summary?.drifting ? html` <b>${count(fleet.summary.drifting)}</b>` : nothing}</a>`)}`, $('views'));
}

let pageAsked = 0;
async function refreshPage() {
  const name = page.name;
  pageAsked = Date.now();
  pages ??= (await import('./pages.js')).PAGES;
  const [path, template] = pages[name];
  try { const data = await getJson(path); if (page.name !== name) return; page.data = data; page.error = null; } catch (error) { if (page.name !== name) return; page.error = error.message; }
  render(html`<div class="text">${page.error ? html`<p class="hot">${clean(page.error)}</p>` : nothing}${page.data ? template(page.data, open) : nothing}</div>`, $('page'));
}

function open(slot, id) {
  const known = slot !== undefined && slot !== null && slot >= 0;
  if (known) { map.cursor = slot; draw(); }
  hostPanel().then((panel) => panel.open(known ? slot : undefined, known ? undefined : id)).then(() => { if (!known) { map.cursor = host.slot; draw(); } });
}

// --- what is told ------------------------------------------------------------------------------------------------------

function trouble() {
  const wrong = state(), box = $('trouble');
  box.hidden = !wrong;
  const text = wrong?.text ?? '';
  if (box.textContent !== text) box.textContent = text;
  root.classList.toggle('old', Boolean(wrong && !wrong.empty));
  render(head(theme, help), $('head'));
}

const STATES = () => fleet.meta.states;
function say(slot) {
  if (slot < 0) return;
  const v = (name) => fleet.plane(name)[slot], s = v('state'), levels = fleet.paint;
  const level = v(levels), what = level === 255 ? 'not known' : range(levels, Math.min(level, levelsOf(levels) - 1));
  const reason = s ? `${STATES()[s]}${fleet.reasons.has(slot) && s === 1 ? `: ${fleet.reasons.get(slot)}` : ''}` : 'schedulable';
  const answer = map.answer && map.code ? `, ${ruledOut(slot)}` : '';
  $('say').textContent = `${clean(fleet.names[slot])}, ${reason}, ${PAINTS[levels].label} ${what}${answer}`;
}
function ruledOut(slot) {
  const code = map.answer.codes[slot];
  return code === 0 ? 'fits the request' : map.answer.dimensions[code - 1] ? `ruled out by ${dimension(map.answer.dimensions[code - 1].name)}` : 'came after the look';
}

let tipSlot = -1, tipRow = null, tipSoon = 0;
function tip(slot, x, y) {
  const box = $('tip');
  if (slot < 0) { box.hidden = true; tipSlot = -1; return; }
  if (slot !== tipSlot) {
    tipSlot = slot;
    tipRow = null;
    clearTimeout(tipSoon);
    tipSoon = setTimeout(async () => { const [row] = await getJson('/api/rows', { slots: slot }).catch(() => []); if (row && slot === tipSlot) { tipRow = row; tip(slot, x, y); } }, 60);
  }
  const s = fleet.plane('state')[slot], r = tipRow;
  render(html`<b><bdi>${clean(fleet.names[slot] ?? '…')}</bdi></b> <span class=${s ? 'hot' : 'soft'}>${s ? clean(r?.reason ?? STATES()[s]) : 'schedulable'}</span>
    ${r?.vcpus_capacity != null ? html`<br>${count(r.vcpus_free)} of ${count(r.vcpus_capacity)} VCPUs · ${mebibytes(r.memory_mb_free)} promised, ${mebibytes(r.memory_mb_available)} measured<br>${gibibytes(r.disk_gb_free)} disk · CPU ${percent(r.cpu_utilization)} · ${duration(r.age)} old${r.claims ? ` · ${count(r.claims)} claims` : ''}` : nothing}
    ${map.answer ? html`<br><span class=${map.answer.codes[slot] ? 'hot' : ''}>${ruledOut(slot)}</span>` : nothing}`, box);
  box.hidden = false;
  const stage = $('stage');
  box.style.left = `${Math.max(0, Math.min(x + 14, stage.clientWidth - box.offsetWidth - 4))}px`;
  box.style.top = `${Math.max(0, y + 14 + box.offsetHeight > stage.clientHeight ? y - box.offsetHeight - 10 : y + 14)}px`;
}

function theme() {
  const light = root.dataset.theme ? root.dataset.theme === 'light' : matchMedia('(prefers-color-scheme: light)').matches;
  root.dataset.theme = light ? 'dark' : 'light';
  show({ theme: root.dataset.theme });
  map.restyled();
  draw();
  legend(true);
}
if (shown.theme) root.dataset.theme = shown.theme;
matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => { map.restyled(); draw(); legend(true); });

function help() {
  const keys = [['/', 'find a host'], ['arrows', 'from host to host, on the map and in the table'], ['Enter', 'open the host under the cursor'], ['Esc', 'clear the filter, close the host'], ['m, t', 'the map, the table'], ['f', 'what fits?'], ['?', 'this']];
  render(html`<form method="dialog"><h2 id="help-title">Keys</h2><dl class="pairs">${keys.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
    <p>Each cell is a host. A strip is a group, as wide as its hosts are many; in it the hosts are sorted by what is painted, those that are out on top. Click bars and names in the legend to see some of them alone; the table shows the same.</p><p>Free is less the claims in flight; ≥ is the least in the window of each host.</p><button class="primary">Close</button></form>`, $('help'));
  $('help').showModal();
}

// --- events ------------------------------------------------------------------------------------------------------------

const canvas = $('map'), ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener('pointermove', (e) => { map.held = true; tip(map.at(e.offsetX, e.offsetY), e.offsetX, e.offsetY); });
canvas.addEventListener('pointerleave', () => { map.held = document.activeElement === canvas && map.cursor >= 0; tip(-1); });
canvas.addEventListener('click', (e) => { const slot = map.at(e.offsetX, e.offsetY); if (slot >= 0) open(slot); });
canvas.addEventListener('blur', () => { map.held = false; tip(-1); });
canvas.addEventListener('keydown', (e) => {
  const arrow = ARROWS[e.key];
  if (arrow) {
    e.preventDefault();
    map.held = true; // the order stands still while somebody walks on it
    map.cursor = map.cursor < 0 ? map.slots?.[0] ?? -1 : map.step(map.cursor, ...arrow);
    draw();
    say(map.cursor);
    const at = map.where(map.cursor);
    if (at) tip(map.cursor, at.x, at.y);
  } else if (e.key === 'Enter' && map.cursor >= 0) open(map.cursor);
});
addEventListener('keydown', (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || $('help').open) return;
  if (e.key === 'Escape') {
    tip(-1);
    if (only.size) { only = new Set(); show({ only: '' }); legend(true); } else host?.close();
    map.held = false;
    map.cursor = host?.slot ?? -1;
    draw();
  }
  if (/INPUT|SELECT|TEXTAREA/.test(document.activeElement?.tagName)) return;
  const action = { '/': () => { if (shown.view !== 'fleet' && shown.view !== 'table') view('fleet'); $('find').focus(); }, '?': help, m: () => view('fleet'), t: () => view('table'), f: () => $('fits').querySelector('input').focus() }[e.key];
  if (action) { e.preventDefault(); action(); }
});
new ResizeObserver(() => { if (shown.view === 'fleet') { map.resized(); draw(); } }).observe($('stage'));

let tick = 0;
on('frame', () => {
  if (wanted) painted(wanted);
  draw();
  // What is beside the map can wait until the map is there.
  setTimeout(() => {
    trouble();
    legend();
    if (tick++ % 10 === 0) views();
    host?.refresh();
    refreshTable();
    if (page.name === shown.view && shown.view !== 'fleet' && shown.view !== 'table' && Date.now() - pageAsked > 2000) refreshPage();
  });
});
on('hosts', () => {
  draw();
  controls();
  fits.draw();
  legend(true);
  if (fits.begun) return;
  fits.begun = true;
  fits.begin();
  if (shown.host) open(undefined, shown.host);
  if (shown.find) find(shown.find);
});
on('state', trouble);

trouble();
controls();
fits.draw();
noHost();
view(shown.view);
follow();
