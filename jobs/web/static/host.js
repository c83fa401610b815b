// A host: what it is, promised, measured and least free beside each other, its claims, its last minutes, why it is out.
import { html, nothing, render, svg } from './vendor/lit-html/lit-html.js';
import { fleet, getJson } from './feed.js';
import { show } from './address.js';
import { terms } from './fits.js';
import { bytesPerSecond, clean, clock, count, dimension, duration, gibibytes, mebibytes, percent } from './text.js';

const WIDTH = 300;

export class HostPanel {
  constructor(element, { onClose, request }) {
    Object.assign(this, { element, onClose, request, slot: -1, id: '', detail: null, row: null, past: null, why: null, events: null, error: null });
  }

  /** Opens a host by its slot, or by its id where no slot is known. */
  async open(slot, id) {
    Object.assign(this, { slot: slot ?? -1, id: id ?? '', detail: null, row: null, past: null, why: null, events: null, error: null, asked: 0 });
    await this.refresh(true);
    if (this.detail) show({ host: this.detail.row.host_id });
    if (innerWidth < 900) this.element.scrollIntoView({ block: 'start' });
  }

  close() {
    this.slot = -1;
    this.detail = this.error = null;
    this.id = '';
    show({ host: '' });
    this.onClose();
  }

  /** Figures each tick from the server's memory; the rest, which is a query, each five seconds. */
  async refresh(now = false) {
    if (this.slot < 0 && !this.id) return;
    if (this.refreshing && !now) return;
    this.refreshing = true;
    const slot = this.slot, which = this.id ? { id: this.id } : { slot }, stillOpen = () => this.slot === slot;
    try {
      if (now || Date.now() - this.asked > 5000) {
        this.asked = Date.now();
        const detail = await getJson('/api/host', which);
        if (!stillOpen()) return;
        Object.assign(this, { detail, slot: detail.slot, id: detail.row.host_id });
        this.detail.at = Date.now();
        const request = this.request();
        const [past, why] = await Promise.all([
          detail.slot < 0 ? null : getJson('/api/past', { slot: detail.slot }),
          request ? getJson('/api/why', { id: this.id, request: JSON.stringify(request) }).catch((error) => ({ error: error.message })) : null,
        ]);
        if (this.id !== detail.row.host_id) return;
        Object.assign(this, { past, why });
      }
      const [row] = this.slot < 0 ? [null] : await getJson('/api/rows', { slots: this.slot });
      if (row?.host_id === this.id) this.row = row;
      if (this.showEvents) this.events = await getJson('/api/events', { id: this.id }).catch((error) => ({ error: error.message }));
      this.error = null;
    } catch (error) {
      this.error = error.message;
    } finally {
      this.refreshing = false;
    }
    this.draw();
  }

  draw() {
    if (!this.detail) {
      render(html`<h2 id="host-title">Host</h2>${this.error ? html`<p class="hot">${clean(this.error)}</p>` : nothing}`, this.element);
      return;
    }
    const d = this.detail, r = { ...d.row, ...(this.row ?? {}) }, x = d.row;
    render(html`<h2 id="host-title"><bdi>${clean(x.name)}</bdi><button class="close" @click=${() => this.close()} aria-label="Close host">✕</button></h2>
      <p class="soft"><bdi>${clean(x.host_id)}</bdi><br>${x.zone ? html`zone <bdi>${clean(x.zone)}</bdi> · ` : nothing}from ${clean(x.source)}${x.agent_version ? ` · agent ${clean(x.agent_version)}` : ''} · ${r.age == null ? 'no usage yet' : `${duration(r.age)} old`}</p>
      ${this.error ? html`<p class="hot">${clean(this.error)}</p>` : nothing}
      ${r.reason ? html`<p class="out"><b>Out.</b> ${reason(r)}</p>` : html`<p class="in"><b>Schedulable.</b></p>`}
      ${this.forRequest()}
      ${r.vcpus_capacity == null ? nothing : html`
        ${gauge('VCPUs', r.vcpus_free, r.vcpus_capacity, null, r.vcpus_free_min, count)}
        ${gauge('memory', r.memory_mb_free, r.memory_mb_capacity, r.memory_mb_available, r.memory_mb_free_min, mebibytes)}
        ${gauge('disk', r.disk_gb_free, r.disk_gb_capacity, r.disk_gb_available, r.disk_gb_free_min, gibibytes)}
        <p class="soft marks">${mark('promise')} promised ${mark('measure')} measured ${mark('least')} least free in the window</p>
        <dl class="pairs"><dt>CPU</dt><dd>${percent(r.cpu_utilization)} busy, ${percent(x.cpu_iowait)} waiting for I/O, ${percent(r.cpu_steal)} stolen</dd>
        <dt>pressure</dt><dd>CPU ${percent(r.cpu_pressure)}, memory ${percent(r.memory_pressure)}, I/O ${percent(r.io_pressure)}</dd>
        <dt>disk</dt><dd>${bytesPerSecond(x.disk_read_bytes_per_s)} read, ${bytesPerSecond(x.disk_write_bytes_per_s)} written</dd>
        <dt>network</dt><dd>${bytesPerSecond(x.net_rx_bytes_per_s)} in, ${bytesPerSecond(x.net_tx_bytes_per_s)} out</dd>
        <dt>instances</dt><dd>${count(r.instances)}</dd></dl>`}
      ${this.lastMinutes()}
      ${d.claims.length ? html`<h3>Claims in flight</h3><table><caption class="unseen">Claims in flight on this host</caption><thead><tr><th scope="col">consumer</th><th scope="col">holds</th><th scope="col" class="n">expires in</th></tr></thead><tbody>${d.claims.map((c) => html`<tr><td title=${c.consumer}>${c.consumer.slice(0, 8)}</td><td>${c.vcpus} VCPUs, ${mebibytes(c.memory_mb)}, ${gibibytes(c.disk_gb)}${held(c.held)}</td><td class="n">${duration(Math.max(0, c.remaining - (Date.now() - d.at) / 1000))}</td></tr>`)}</tbody></table>` : nothing}
      ${d.drift.length ? html`<h3>Drift</h3>${d.drift.map((k) => html`<p class="hot">${k.kind.replace(/_/g, ' ')}: promised ${count(k.promised)}, measured ${count(k.measured)}</p>`)}` : nothing}
      ${d.cells.length ? html`<h3>NUMA cells</h3>${cells(x.numa_cells, d.cells)}` : nothing}
      ${d.pools.length ? html`<h3>PCI devices</h3>${d.pools.map(pool)}` : nothing}
      ${d.classes.length ? html`<h3>Resource classes</h3><dl class="pairs">${d.classes.map((c) => html`<dt><bdi>${clean(c.resource_class)}</bdi></dt><dd>${c.free == null ? 'not known how many are free' : `${count(c.free)} free`} of ${count(c.total)}</dd>`)}</dl>` : nothing}
      ${tags('Traits', x.traits)}${tags('Aggregates', x.aggregates)}
      ${fleet.meta?.kafka ? html`<details ?open=${this.showEvents} @toggle=${(e) => { this.showEvents = e.target.open; }}><summary>Its events as they come</summary>${this.eventList()}</details>` : nothing}`, this.element);
  }

  forRequest() {
    const w = this.why;
    if (!w) return nothing;
    if (w.error) return html`<p class="hot">${clean(w.error)}</p>`;
    if (!w.ruled_out_by.length) return html`<p><b>Fits the request</b>, score ${w.score.toFixed(3)}: ${terms(w.terms)}</p>`;
    return html`<p class="out">For the request, ruled out by ${w.ruled_out_by.map((name, i) => html`${i ? ', ' : ''}<b>${dimension(name)}</b>`)}.</p>`;
  }

  lastMinutes() {
    const p = this.past;
    if (!p || p.at.length < 2) return html`<h3>The last minutes</h3><p class="soft">The server remembers them from its start on; it has just begun.</p>`;
    const line = (name, kind) => {
      const last = p.at.at(-1), x = (at) => WIDTH - ((last - at) / 900) * WIDTH;
      let path = '', drawn = false;
      p[name].forEach((v, i) => { if (v == null) { drawn = false; return; } path += `${drawn ? 'L' : 'M'}${x(p.at[i]).toFixed(1)} ${(41 - v * 38).toFixed(1)}`; drawn = true; });
      return svg`<path class=${kind} d=${path}></path>`;
    };
    return html`<h3>The last ${Math.round((p.at.at(-1) - p.at[0]) / 60) || 1} min</h3>
      <svg class="past" viewBox="0 0 ${WIDTH} 44" role="img" aria-label="VCPUs free, memory available and CPU utilisation in the last minutes"><path class="axis" d="M0 3H${WIDTH}M0 22H${WIDTH}M0 41H${WIDTH}"></path>${line('vcpus_free', 'promise')}${line('memory_mb_available', 'measure')}${line('cpu_utilization', 'least')}</svg>
      <p class="soft marks">${mark('promise')} VCPUs free ${mark('measure')} memory measured ${mark('least')} CPU busy; from this server's memory</p>`;
  }

  eventList() {
    const list = this.events;
    if (!list) return html`<p class="soft">Waiting for the next one …</p>`;
    if (list.error) return html`<p class="hot">${clean(list.error)}</p>`;
    return html`<table class="events"><caption class="unseen">Newest events</caption><tbody>${list.map((e) => html`<tr><td>${clock(e.append_time)}</td><td class="n">${e.partition}/${e.offset}</td><td>${clean(e.text)}</td></tr>`)}</tbody></table>`;
  }
}

function reason(r) {
  if (r.reason === 'stale') return `Its newest figures are ${duration(r.age)} old; those older than ${duration(fleet.meta?.max_age)} are not trusted. Does its agent run?`;
  if (r.reason === 'no usage yet') return 'It has said what it is, and never what it has free. Does its agent run?';
  if (r.reason === 'clock ahead') return 'Its figures are from the future: the clock of the broker that took them is ahead. When they were measured is not known.';
  if (r.reason === 'duplicate id') return 'Several nodes report under its id, so its figures are those of either. Give each an id of its own.';
  if (r.reason.startsWith('disabled')) return html`An operator has disabled it${r.reason.length > 10 ? html`: <bdi>${clean(r.reason.slice(10))}</bdi>` : ''}.`;
  return clean(r.reason);
}

function gauge(label, free, capacity, measured, least, unit) {
  const x = (v) => Math.max(0, Math.min(1, capacity > 0 ? v / capacity : 0)) * WIDTH;
  return html`<div class="gauge"><div class="caption"><span>${label}</span><span><b>${unit(free)}</b> <span class="soft">of ${unit(capacity)}${measured == null ? ' free' : ` · ${unit(measured)} measured`}</span></span></div>
    <svg viewBox="0 0 ${WIDTH} 16" preserveAspectRatio="none" role="img" aria-label="${label}: ${unit(free)} of ${unit(capacity)} free, at least ${unit(least)} in the window${measured == null ? '' : `, measured ${unit(measured)}`}"><rect class="back" width=${WIDTH} height="9"></rect><rect class="promise" width=${x(free)} height="9"></rect><rect class="least" x=${Math.max(0, x(least) - 1.5)} width="3" height="9"></rect>${measured == null ? nothing : svg`<rect class="back" y="11" width=${WIDTH} height="5"></rect><rect class="measure" y="11" width=${x(measured)} height="5"></rect>`}</svg></div>`;
}
const mark = (kind) => html`<svg class="swatch" width="10" height="10" aria-hidden="true"><rect class=${kind} width="10" height="10"></rect></svg>`;
const held = (h) => Object.entries(h ?? {}).map(([name, amount]) => `, ${clean(name)}: ${count(amount)}`).join('');
const tags = (label, list) => (list?.length ? html`<h3>${label}</h3><p class="tags">${list.map((t) => html`<bdi>${clean(t)}</bdi> `)}</p>` : nothing);

function cells(told, free) {
  return html`<div class="cells">${free.map((cell) => {
    const { cpus = [], free_cpus: unpinned = [] } = told?.find((c) => c.id === cell.id) ?? {}, size = 12;
    return html`<figure><figcaption>cell ${cell.id}: ${count(cell.cpus_free)} of ${cpus.length} CPUs free${Object.entries(cell.pages_free ?? {}).map(([kb, n]) => html`<br><span class="soft">${count(n)} pages of ${kb >= 1048576 ? `${kb / 1048576} GiB` : kb >= 1024 ? `${kb / 1024} MiB` : `${kb} KiB`} free</span>`)}</figcaption>
      <svg width=${Math.min(cpus.length, 12) * size} height=${Math.ceil(cpus.length / 12) * size} role="img" aria-label="CPUs of cell ${cell.id}">${cpus.map((cpu, i) => svg`<rect class=${unpinned.includes(cpu) ? 'promise' : 'back'} x=${(i % 12) * size} y=${Math.floor(i / 12) * size} width=${size - 2} height=${size - 2}><title>CPU ${cpu}: ${unpinned.includes(cpu) ? 'free' : 'in use'}</title></rect>`)}</svg></figure>`;
  })}</div>`;
}

function pool(p) {
  const shown = Math.min(p.total ?? 0, 64);
  return html`<p class="pool"><span><bdi>${clean(p.vendor_id)}:${clean(p.product_id)}</bdi>${p.numa_node == null ? '' : ` in cell ${p.numa_node}`}${Object.entries(p.tags ?? {}).map(([k, v]) => html` <bdi>${clean(k)}=${clean(v)}</bdi>`)}: ${count(p.free)} of ${count(p.total)} free${p.claimed ? `, ${p.claimed} claimed` : ''}</span>
    <svg width=${shown * 12} height="10" role="img" aria-label="${p.free} of ${p.total} free">${Array.from({ length: shown }, (_, i) => svg`<rect class=${i < p.free ? 'promise' : 'back'} x=${i * 12} width="10" height="10"></rect>`)}</svg></p>`;
}
