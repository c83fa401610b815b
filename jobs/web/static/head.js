// The head: totals, and whether what is shown can be trusted.
import { html, nothing } from './vendor/lit-html/lit-html.js';
import { fleet } from './feed.js';
import { clean, clock, count, duration, gibibytes, mebibytes } from './text.js';

const stat = (value, label, hot, title) => html`<div class="stat ${hot ? 'hot' : ''}" title=${title ?? nothing}><dd>${value}</dd><dt>${label}</dt></div>`;

export function head(onTheme, onHelp) {
  const s = fleet.summary ?? {}, c = s.counts ?? {}, t = s.totals ?? {}, ages = s.ages, trouble = state();
  const least = (free, min, unit) => `${unit(min)} is the sum of what was least free on each host in its window; free now: ${unit(free)}`;
  return html`<h1>vacancy</h1>
    <dl class="stats">
      ${stat(count(s.hosts), 'hosts')}${stat(count(c.schedulable), 'schedulable')}
      ${c.disabled ? stat(count(c.disabled), 'disabled') : nothing}${c.stale ? stat(count(c.stale), 'stale', true) : nothing}
      ${c['no usage yet'] ? stat(count(c['no usage yet']), 'no usage yet', true) : nothing}${c['duplicate id'] ? stat(count(c['duplicate id']), 'duplicate id', true) : nothing}${c['clock ahead'] ? stat(count(c['clock ahead']), 'clock ahead', true) : nothing}
      ${stat(html`${count(t.vcpus_free)} <small>≥ ${count(t.vcpus_free_min)}</small>`, 'VCPUs free', false, least(t.vcpus_free, t.vcpus_free_min, count))}
      ${stat(html`${mebibytes(t.memory_mb_free)} <small>≥ ${mebibytes(t.memory_mb_free_min)}</small>`, 'memory free', false, least(t.memory_mb_free, t.memory_mb_free_min, mebibytes))}
      ${stat(html`${gibibytes(t.disk_gb_free)} <small>≥ ${gibibytes(t.disk_gb_free_min)}</small>`, 'disk free', false, least(t.disk_gb_free, t.disk_gb_free_min, gibibytes))}
      ${stat(count(s.claims), s.claims === 1 ? 'claim in flight' : 'claims in flight')}
      ${ages ? stat(`${duration(ages.p50)} / ${duration(ages.p99)}`, 'age p50 / p99', ages.p99 > fleet.meta.max_age) : nothing}
    </dl>
    <p class="live ${trouble ? 'off' : ''}"><i></i>${trouble ? trouble.short : html`live, ${count(s.rows_per_s)} rows/s`}${sources(s.sources)}</p>
    <div class="buttons"><button @click=${onTheme} aria-label="Light or dark">◐</button><button @click=${onHelp} aria-label="Keys and help">?</button></div>`;
}

function sources(list) {
  const silent = (list ?? []).filter((s) => s.expected && s.silent >= s.expected / 2);
  return silent.length ? html` · <b class="hot">${silent.map((s) => clean(s.source)).join(', ')} silent</b>` : nothing;
}

/** What is wrong with what is shown: the server, the database, or nobody who writes the table; null: nothing. */
export function state() {
  const s = fleet.summary;
  if (fleet.offline) {
    return { short: 'no answer', text: `vacancy web has not answered since ${clock(fleet.offline / 1000)}. ${fleet.hosts ? 'You see what was known then.' : ''}` };
  }
  if (!s) return null;
  if (s.trouble) return { short: 'database away', text: `The table cannot be read since ${clock(s.trouble.since)}: ${clean(s.trouble.message)}. ${fleet.hosts ? 'You see what was known then.' : ''}` };
  if (s.newest && fleet.now - s.newest > fleet.meta.max_age) {
    return { short: 'nothing new', text: `No host has a new row since ${clock(s.newest)}, ${duration(fleet.now - s.newest)} ago: does the job run, do the agents report? vacancy doctor says more. You see what was known then.` };
  }
  if (!s.hosts) return { short: 'no hosts', text: 'The table has no hosts yet: does the job run, do agents report? vacancy doctor says more.', empty: true };
  return null;
}
