// The other views: claims, drift, dead letters, sources, freshness.
import { html, nothing, svg } from './vendor/lit-html/lit-html.js';
import { fleet } from './feed.js';
import { clean, clock, count, duration, gibibytes, mebibytes } from './text.js';

const table = (caption, heads, rows, empty) => (rows.length
  ? html`<table class="list"><caption class="unseen">${caption}</caption><thead><tr>${heads.map(([label, right]) => html`<th scope="col" class=${right ? 'n' : ''}>${label}</th>`)}</tr></thead><tbody>${rows}</tbody></table>`
  : html`<p class="soft">${empty}</p>`);
const hostLink = (id, name, onOpen) => html`<button class="link" @click=${() => onOpen(undefined, id)}><bdi>${clean(name ?? id)}</bdi></button>`;

function claims(list, onOpen) {
  return html`<h2>Claims in flight</h2><p class="soft">What schedulers have picked and hosts do not show yet, oldest first. They are made and given back on the command line.</p>
    ${table('Claims in flight', [['age', 1], ['expires in', 1], ['host'], ['VCPUs', 1], ['memory', 1], ['disk', 1], ['consumer'], ['also holds']], list.map((c) => html`<tr><td class="n">${duration(c.age)}</td><td class="n">${duration(c.remaining)}</td><td>${hostLink(c.host_id, c.host_name, onOpen)}</td><td class="n">${count(c.vcpus)}</td><td class="n">${mebibytes(c.memory_mb)}</td><td class="n">${gibibytes(c.disk_gb)}</td><td><code>${c.consumer}</code></td><td>${Object.entries(c.held ?? {}).map(([name, n]) => `${clean(name)}: ${count(n)}`).join(', ')}</td></tr>`), 'No claim is in flight.')}${list.length === 500 ? html`<p class="soft">The oldest 500.</p>` : nothing}`;
}

const KINDS = {
  allocations_without_instances: ['holds VCPUs or memory for instances and counts none', (r) => [`${count(r.promised)} VCPUs held`, `${count(r.measured)} instances`]],
  instances_without_allocations: ['counts instances and holds nothing for them', (r) => [`${count(r.promised)} VCPUs held`, `${count(r.measured)} instances`]],
  memory_missing: ['has less memory than it may still promise', (r) => [`${mebibytes(r.promised)} promised`, `${mebibytes(r.measured)} there`]],
};
function drift(list, onOpen) {
  return html`<h2>Drift</h2><p class="soft">Hosts whose promises and measurements do not agree. vacancy drift --watch notes since when.</p>
    ${table('Drift', [['host'], ['source'], ['what'], ['promised', 1], ['measured', 1], ['for at least', 1]], list.map((r) => { const [what, amounts] = KINDS[r.kind] ?? [clean(r.kind), () => [count(r.promised), count(r.measured)]]; const [promised, measured] = amounts(r); return html`<tr><td>${hostLink(r.host_id, r.name, onOpen)}</td><td>${clean(r.source)}</td><td>${what}</td><td class="n">${promised}</td><td class="n">${measured}</td><td class="n">${duration(r.lasted)}</td></tr>`; }), 'No host drifts.')}`;
}

function letters(list) {
  return html`<h2>Dead letters</h2><p class="soft">Records that could not be decoded and rows that the database refused, of the newest of each partition. vacancy dead-letters shows all.</p>
    ${table('Dead letters by reason', [['reason'], ['of the newest', 1], ['newest'], ['from'], ['key'], ['bytes', 1], ['begins with']], list.map((l) => html`<tr><td><bdi>${clean(l.reason ?? 'no reason given')}</bdi></td><td class="n">${count(l.count)}</td><td>${clean(l.append_time ?? '')}</td><td><bdi>${clean(l.table ?? `${l.topic} ${l.partition}/${l.offset}`)}</bdi></td><td><bdi>${clean(l.key ?? '')}</bdi></td><td class="n">${count(l.payload_bytes)}</td><td><code>${clean(l.payload)}</code></td></tr>`), 'There are none.')}`;
}

function sources(list) {
  return html`<h2>Sources</h2><p class="soft">Who speaks for the hosts, storage pools as well, and whether it is heard.</p>
    ${table('Sources', [['source'], ['hosts', 1], ['should report', 1], ['silent', 1], ['newest', 1], ['oldest', 1], ['verdict']], list.map((s) => { const silent = s.hosts_silent && s.hosts_silent >= s.hosts_expected / 2; return html`<tr><td><bdi>${clean(s.source)}</bdi></td><td class="n">${count(s.hosts)}</td><td class="n">${count(s.hosts_expected)}</td><td class="n ${s.hosts_silent ? 'hot' : ''}">${count(s.hosts_silent)}</td><td class="n">${duration(s.age_min_seconds)}</td><td class="n">${duration(s.age_max_seconds)}</td><td class=${silent ? 'hot' : ''}>${silent ? 'silent as a whole' : s.hosts_silent ? 'some are silent' : 'heard'}</td></tr>`; }), 'No source has been heard.')}`;
}

function chart(points, lines, unit) {
  const W = 720, H = 140, first = points[0].at, last = Math.max(points.at(-1).at, first + 60);
  const most = Math.max(...lines.flatMap(([name]) => points.map((p) => p[name] ?? 0)), 0.001) * 1.1;
  const path = (name) => points.filter((p) => p[name] != null).map((p, i) => `${i ? 'L' : 'M'}${(((p.at - first) / (last - first)) * W).toFixed(1)} ${(H - (p[name] / most) * H).toFixed(1)}`).join('');
  return html`<figure class="chart"><figcaption>${lines.map(([name, label, kind]) => html`<span>${svgMark(kind)} ${label}: ${unit(points.at(-1)[name])}</span>`)}<span class="soft">top: ${unit(most)}</span></figcaption>
    <svg viewBox="0 0 ${W} ${H}" preserveAspectRatio="none" role="img" aria-label=${lines.map(([name, label]) => `${label}: now ${unit(points.at(-1)[name])}`).join(', ')}><path class="axis" d="M0 ${H}H${W}M0 ${H / 2}H${W}M0 0H${W}"></path>${lines.map(([name, , kind]) => svg`<path class=${kind} d=${path(name)}></path>`)}</svg>
    <p class="soft times"><span>${clock(first)}</span><span>${clock(last)}</span></p></figure>`;
}
const svgMark = (kind) => html`<svg class="swatch" width="10" height="10" aria-hidden="true"><rect class=${kind} width="10" height="10"></rect></svg>`;

function freshness(points) {
  if (points.length < 2) return html`<h2>Freshness</h2><p class="soft">The server remembers it from its start on; it has just begun.</p>`;
  return html`<h2>Freshness</h2><p class="soft">Ages of enabled hosts that have reported, rows that were written, and hosts that are stale; from this server's memory, an hour at most. Older than ${duration(fleet.meta?.max_age)} is stale.</p>
    ${chart(points, [['age_p99', 'age, 99 % within', 'least'], ['age_p50', 'age, half within', 'promise']], duration)}
    ${chart(points, [['rows_per_s', 'rows a second', 'measure']], count)}${chart(points, [['stale', 'stale hosts', 'least'], ['claims', 'claims in flight', 'promise']], count)}`;
}

export const PAGES = {
  claims: ['/api/claims', claims], drift: ['/api/drift', drift], letters: ['/api/dead-letters', letters],
  sources: ['/api/sources', sources], freshness: ['/api/freshness', freshness],
};
