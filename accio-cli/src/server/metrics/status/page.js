'use strict';
(() => {
  const PARTS = ['title', 'totals', 'uploads', 'outcomes', 'limits'];
  const element = (id) => document.getElementById(id);
  const [field, stamp, pause, said] = ['filter', 'stamp', 'pause', 'said'].map(element);
  let timer, paused = false, isStale = false, updates = 0, counts = element('totals').dataset.counts;
  let seen = new Map();

  // Makes one tree equal to another, and reuses nodes, which keep focus, selection and scroll position.
  const patch = (old, next) => {
    if (old.nodeName !== next.nodeName) {
      old.replaceWith(document.importNode(next, true));
      return;
    }
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== next.data) old.data = next.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!next.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const rows = new Map();
    for (const child of old.children) {
      if (child.dataset.key) rows.set(child.dataset.key, child);
    }
    let at = old.firstChild;
    for (const child of next.childNodes) {
      const key = child.dataset?.key;
      const same = key ? rows.get(key) : at?.dataset?.key ? undefined : at;
      if (!same) {
        old.insertBefore(document.importNode(child, true), at);
        continue;
      }
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      patch(same, child);
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };

  const size = (bytes) => {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
    let unit = 0;
    for (; bytes >= 1023.95 && unit + 1 < units.length; unit += 1) bytes /= 1024;
    return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
  };

  // Replaces the average rates from the server by the rates since the last update.
  const showRates = () => {
    const at = Date.parse(stamp.querySelector('time').dateTime);
    const readings = new Map();
    for (const row of document.querySelectorAll('tr[data-bytes]')) {
      const { key, bytes } = row.dataset;
      const before = seen.get(key);
      if (before && at > before.at) {
        const rate = Math.max(0, bytes - before.bytes) * 1000 / (at - before.at);
        row.querySelector('.rate').textContent = `${size(rate)}/s`;
      }
      readings.set(key, { bytes, at });
    }
    seen = readings;
  };

  const showTimes = () => {
    const today = new Date().toDateString();
    for (const time of document.querySelectorAll('time')) {
      const at = new Date(time.dateTime);
      const isToday = at.toDateString() === today;
      time.textContent = isToday ? at.toLocaleTimeString() : at.toLocaleString();
    }
  };

  const say = (text) => {
    if (said.textContent !== text) said.textContent = text;
  };

  const refresh = async () => {
    clearTimeout(timer);
    try {
      const answer = await fetch(location.pathname + location.search, {
        cache: 'no-store',
        signal: AbortSignal.timeout(5000),
      });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      for (const id of PARTS) patch(element(id), page.getElementById(id));
      patch(stamp, page.getElementById('stamp'));
      document.title = page.title;
      showRates();
      showTimes();
      isStale = false;
      updates += 1;
      document.body.dataset.updates = updates;
      const totals = element('totals').dataset;
      if (totals.counts !== counts) {
        counts = totals.counts;
        say(totals.said);
      }
    } catch {
      if (!isStale) {
        isStale = true;
        stamp.className = 'stale';
        stamp.prepend('The server does not answer. ');
        say('The server does not answer.');
      }
    }
    plan();
  };

  const plan = () => {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(refresh, 2000);
  };

  const search = () => {
    const query = field.value.trim();
    history.replaceState(null, '', query ? `?${new URLSearchParams({ q: query })}` : location.pathname);
    refresh();
  };

  let typing;
  field.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(search, 250);
  });
  field.form.addEventListener('submit', (event) => {
    event.preventDefault();
    clearTimeout(typing);
    search();
  });
  pause.hidden = false;
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.textContent = paused ? 'Resume' : 'Pause';
    if (paused) plan();
    else refresh();
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden && !paused) refresh();
  });
  showTimes();
  showRates();
  plan();
})();
