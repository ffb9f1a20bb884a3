'use strict';
const $ = (id) => document.getElementById(id);
const WORDS = {
  fast: 'fast', finer: 'finer', finest: 'finest', faithful: 'adds the least that was not there',
  crisper: 'sharper edges; some of them are invented', meudec: 'small, with the layers of Meudec\u2019s code',
};
let server = {weights: {}, views: {}, samples: [], largest_upload: Infinity};
let settings;  // of the photographs that come next
let photographs = [];
let current = null;  // the photograph in the viewer
let pumping = false;

const element = (name, properties, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const say = (text) => { $('said').textContent = text; };
const duration = (seconds) => seconds < 1 ? 'less than 1 s' : seconds < 100 ? `about ${Math.round(seconds)} s`
  : `about ${Math.round(seconds / 60)} min`;

// ---- photographs come

const add = async (files) => {
  if (!await begun) return;
  const added = files.map((file) => ({
    file, name: file.name, url: URL.createObjectURL(file), settings: {...settings}, results: new Map(), at: {},
    ...(file.size > server.largest_upload ? {
      state: 'failed', problem: `${file.name}: is larger than ${server.largest_upload / 2 ** 20} MB; send a smaller file`,
    } : {state: 'queued'}),
  }));
  if (!added.length) return;
  photographs.push(...added);
  added.forEach(draw);
  show(added[0]);
  pump();
};
$('files').addEventListener('change', () => { add([...$('files').files]); $('files').value = ''; });
addEventListener('paste', (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  add([...event.clipboardData.files]);
});
let depth = 0;  // a drag enters an element before it leaves the one around it
const dragged = (change) => document.body.classList.toggle('dragged', (depth = Math.max(0, depth + change)) > 0);
addEventListener('dragenter', (event) => { event.preventDefault(); dragged(1); });
addEventListener('dragleave', () => dragged(-1));
addEventListener('dragover', (event) => event.preventDefault());
addEventListener('drop', (event) => {
  event.preventDefault();
  dragged(-depth);
  const isFolder = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()?.isDirectory);
  add([...event.dataTransfer.files].filter((file, i) => !isFolder[i]));
  if (isFolder.includes(true)) say('A folder is left out: drop the photographs in it.');
});

// ---- and are restored, one at a time

const key = ({settings}) => `${settings.weights} ${settings.views}`;
const resultOf = (photograph) => photograph.results.get(key(photograph));

/** Restores what is queued, first the photograph in the viewer. */
const pump = async () => {
  if (pumping) return;
  pumping = true;
  const next = () => current?.state === 'queued' ? current : photographs.find(({state}) => state === 'queued');
  for (let one; (one = next());) {
    const wanted = key(one), abort = new AbortController();
    Object.assign(one, {state: 'sent', at: {}, abort});
    draw(one);
    try {
      const result = await restore(one, 100, abort.signal, (at) => { one.at = at; draw(one); });
      one.results.set(wanted, result);
    } catch (error) {
      if (!abort.signal.aborted) Object.assign(one, {state: 'failed', problem: error.message});
    }
    if (one.state === 'sent' && !abort.signal.aborted) one.state = 'done';
    if (photographs.includes(one)) say(one.state === 'done' ? `${one.name} is restored.` : one.problem ?? '');
    draw(one);
  }
  pumping = false;
};
const settle = (photograph) => {
  photograph.abort?.abort();
  photograph.state = resultOf(photograph) ? 'done' : 'queued';
  draw(photograph);
  pump();
};
const cancel = (photograph) => {
  photograph.abort?.abort();
  photograph.state = 'cancelled';
  draw(photograph);
};
const remove = (photograph) => {
  photograph.abort?.abort();
  const place = photographs.indexOf(photograph);
  photographs.splice(place, 1);
  photograph.card.remove();
  URL.revokeObjectURL(photograph.url);
  for (const {urls} of photograph.results.values()) urls.forEach(URL.revokeObjectURL);
  if (photograph === current) show(photographs[Math.min(place, photographs.length - 1)] ?? null);
  else drawList();
};

/** Sends a photograph. Returns what the last line says, the file as a Blob, and addresses of both pictures. */
const restore = async (photograph, strength, signal, progress) => {
  const broken = () => new Error(`${photograph.name}: the server does not answer; see whether it runs, and try again`);
  const form = new FormData();
  form.append('photograph', photograph.file, photograph.name);
  form.append('views', photograph.settings.views);
  form.append('weights', photograph.settings.weights);
  form.append('strength', strength / 100);
  const headers = {Accept: 'application/x-ndjson'};
  const answer = await fetch('restore', {method: 'POST', body: form, signal, headers}).catch(() => { throw broken(); });
  if (!answer.ok) throw new Error((await answer.json().catch(() => { throw broken(); })).error);
  const reader = answer.body.getReader();
  const read = () => reader.read().catch(() => { throw broken(); });
  let about, rest = new Uint8Array();
  while (!about) {
    const {value, done} = await read();
    if (done) throw broken();
    const received = new Uint8Array(rest.length + value.length);
    received.set(rest);
    received.set(value, rest.length);
    let start = 0;
    for (let end; !about && (end = received.indexOf(10, start)) >= 0; start = end + 1) {
      const line = JSON.parse(new TextDecoder().decode(received.subarray(start, end)));
      if (line.error) throw new Error(line.error);
      if (line.bytes) about = line; else progress(line);
    }
    rest = received.slice(start);
  }
  const parts = [rest];
  for (let next; !(next = await read()).done;) parts.push(next.value);
  const all = new Blob(parts);
  let at = about.bytes;
  if (all.size !== about.copies.reduce((sum, size) => sum + size, at)) throw broken();
  const file = all.slice(0, at, about.type);
  const copies = about.copies.map((size) => all.slice(at, at += size, 'image/png'));
  const urls = (copies.length ? copies : [file]).map((blob) => URL.createObjectURL(blob));
  return {about, file, urls, strengths: new Map([[100, file]])};
};

// ---- the viewer

const show = (photograph) => {
  current = photograph;
  if (photograph) {
    settings = {...photograph.settings};
    draw(photograph);
    pump();
  }
  drawList();
};
const progressOf = ({state, at}) => {
  if (state === 'queued') return 'Waiting for the photographs before it';
  if (at.state === 'waiting' && at.place === 0) return 'Starting';
  const left = at.seconds == null ? '' : `, ${duration(at.seconds)}${at.state === 'restoring' ? ' left' : ''}`;
  if (at.state === 'loading') return 'The server is loading the network';
  if (at.state === 'waiting') return `${at.place} ${at.place === 1 ? 'photograph' : 'photographs'} before this one${left}`;
  if (at.state === 'restoring') return `Restoring, ${Math.round(100 * at.done / (at.total || 1))} %${left}`;
  return 'Sending';
};
const shownIn = (photograph, result) => {  // the picture is made anew only if it is another one
  const wanted = result ?? photograph;
  if ($('picture').shown === wanted) return;
  $('picture').shown = wanted;
  zoom(false);
  if (!result) {
    const image = element('img', {src: photograph.url, alt: `${photograph.name}, blurred`});
    image.addEventListener('error', () => image.remove());  // the server sends copies of what a browser does not show
    $('picture').replaceChildren(image);
    return;
  }
  const [before, after] = [...[photograph.url, ...result.urls].slice(-2)].map((src) => element('img', {src}));
  before.alt = 'Blurred';
  after.alt = 'Restored';
  const box = compareImages([before, after]);
  const scroller = element('div', {className: 'scroller'}, box.firstChild);
  scroller.addEventListener('dblclick', (event) => zoom(!$('picture').classList.contains('zoomed'), event));
  box.prepend(scroller);
  const [width, height] = result.about.size;
  box.style.maxWidth = `min(${Math.max(width, 640)}px, ${70 * width / height}vh)`;
  box.style.setProperty('--width', `${width}px`);
  $('picture').replaceChildren(box);
  blend();
};
const blend = () => {
  const after = $('picture').querySelectorAll('.stack img')[1];
  if (after) after.style.opacity = current.settings.strength / 100;
  $('strength-value').textContent = `${current.settings.strength} %`;
};
/** Shows the pictures pixel by pixel, or fitted; at the place of an event. */
const zoom = (on, event) => {
  const scroller = $('picture').querySelector('.scroller');
  const box = scroller?.firstChild.getBoundingClientRect();
  const [x, y] = event ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [.5, .5];
  $('picture').classList.toggle('zoomed', on);
  $('zoom').setAttribute('aria-pressed', on);
  if (!scroller) return;
  scroller.tabIndex = on ? 0 : -1;
  scroller.scrollTo(x * scroller.scrollWidth - scroller.clientWidth / 2, y * scroller.scrollHeight - scroller.clientHeight / 2);
};
const draw = (photograph) => {
  drawCard(photograph);
  if (photograph !== current) return;
  const {state, at} = photograph, result = resultOf(photograph), done = state === 'done';
  if (done) photograph.last = result;
  $('name').textContent = photograph.name;
  shownIn(photograph, done ? result : photograph.last);
  $('progress').hidden = state !== 'sent' && state !== 'queued';
  $('progress-text').textContent = progressOf(photograph);
  if (at.total) $('bar').value = 100 * at.done / at.total; else $('bar').removeAttribute('value');
  $('problem').hidden = state !== 'failed' && state !== 'cancelled';
  $('problem').textContent = state === 'cancelled' ? 'Cancelled.' : photograph.problem;
  $('facts').hidden = !done;
  $('notes').hidden = !done || !result.about.notes.length;
  if (done) {
    const {size, seconds, working_size: working} = result.about;
    $('facts').textContent = `${size.join(' \u00d7 ')} pixels, restored `
      + (working.join() === size.join() ? '' : `at ${working.join(' \u00d7 ')} `) + `in ${seconds.toFixed(1)} s`;
    $('notes').replaceChildren(...result.about.notes.map((note) => element('li', {textContent: `Not kept: ${note}`})));
  }
  $('download').hidden = $('zoom').hidden = !done;
  $('again').hidden = state !== 'failed' && state !== 'cancelled';
  $('cancel').hidden = $('progress').hidden;
  $('strength').value = photograph.settings.strength;
  blend();
  const times = result?.about.times ?? at.times ?? {};
  for (const field of ['views', 'weights']) for (const label of $(field).querySelectorAll('label')) {
    const input = label.querySelector('input');
    input.checked = input.value === photograph.settings[field];
    if (field === 'views') label.querySelector('small').textContent = input.value in times ? duration(times[input.value])
      : server.views[input.value] === 1 ? '' : `about ${server.views[input.value]} times as long`;
  }
  drawList();
};

// ---- the list

const drawCard = (photograph) => {
  if (!photograph.card) {
    const image = element('img', {alt: '', src: photograph.url});
    image.addEventListener('error', () => { image.hidden = true; });
    const open = element('button', {className: 'open'}, image, element('span', {className: 'name', textContent: photograph.name}),
      element('span', {className: 'state'}));
    const end = element('button', {className: 'end'});
    open.addEventListener('click', () => show(photograph));
    end.addEventListener('click', () => busy(photograph) ? cancel(photograph) : remove(photograph));
    const save = element('button', {className: 'save', textContent: 'Download', ariaLabel: `Download ${photograph.name}`});
    save.addEventListener('click', () => download(photograph, save));
    photograph.card = element('li', {}, open, element('div', {className: 'bar'}, save, end));
    $('list').querySelector('ul').append(photograph.card);
  }
  const {card, state, at} = photograph;
  const [image, , text] = card.querySelector('.open').children, [save, end] = card.querySelectorAll('.bar button');
  const result = state === 'done' && resultOf(photograph);
  if (result && image.src !== result.urls.at(-1)) Object.assign(image, {src: result.urls.at(-1), hidden: false});
  text.textContent = state === 'sent' && at.state === 'restoring' ? `${Math.round(100 * at.done / (at.total || 1))} %`
    : {queued: 'waiting', sent: at.state ?? 'sending', done: 'restored', failed: 'not restored', cancelled: 'cancelled'}[state];
  card.className = state;
  save.hidden = !result;
  end.textContent = busy(photograph) ? 'Cancel' : 'Remove';
  end.ariaLabel = `${end.textContent} ${photograph.name}`;
};
const busy = ({state}) => state === 'queued' || state === 'sent';
const drawList = () => {
  $('work').hidden = $('list').hidden = !photographs.length;
  document.body.classList.toggle('empty', !photographs.length);
  $('download-all').hidden = photographs.filter(({state}) => state === 'done').length < 2;
  $('for-all').hidden = !photographs.some((one) => JSON.stringify(one.settings) !== JSON.stringify(current.settings));
  for (const one of photographs) one.card.querySelector('.open').ariaCurrent = one === current;
};

// ---- settings

$('strength').addEventListener('input', () => {
  settings.strength = current.settings.strength = $('strength').valueAsNumber;
  blend();
  drawList();
});
$('settings').addEventListener('change', ({target}) => {
  if (target.type !== 'radio') return;
  settings[target.name] = current.settings[target.name] = target.value;
  settle(current);
});
$('settings').addEventListener('submit', (event) => event.preventDefault());
$('for-all').addEventListener('click', () => {
  for (const one of photographs) if (one !== current && one.state !== 'failed') {
    one.settings = {...settings};
    settle(one);
  }
  drawList();
});
$('cancel').addEventListener('click', () => cancel(current));
$('again').addEventListener('click', () => settle(current));
$('zoom').addEventListener('click', () => zoom(!$('picture').classList.contains('zoomed')));

// ---- downloads

/** What a download is made of. Settings may change, and the photograph be removed, before its turn comes. */
const asItIs = (photograph) => {
  const {file, name, settings} = photograph;
  return {file, name, settings: {...settings}, strengths: resultOf(photograph).strengths};
};
/** The file at the strength that was set: the server makes the same bytes as `deblur-gan restore --strength`. */
const fileOf = async (photograph, progress) => {
  const {strengths, settings: {strength}} = photograph;
  if (!strengths.has(strength)) {
    const {file, urls} = await restore(photograph, strength, null, progress);
    urls.forEach(URL.revokeObjectURL);
    strengths.set(strength, file);
  }
  return strengths.get(strength);
};
const save = (file, name) => {
  const url = URL.createObjectURL(file);
  element('a', {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};
const preparing = async (button, make) => {
  const title = button.textContent;
  button.disabled = true;
  try {
    await make((text) => { button.textContent = text; });
  } catch (error) {
    say(error.message);
    $('problem').hidden = false;
    $('problem').textContent = error.message;
  }
  button.disabled = false;
  button.textContent = title;
};
const percent = ({done, total}) => total ? `Preparing, ${Math.round(100 * done / total)} %` : 'Preparing';
const download = (photograph, button) => preparing(button, async (title) => {
  save(await fileOf(asItIs(photograph), (at) => title(percent(at))), photograph.name);
});
$('download').addEventListener('click', () => download(current, $('download')));
$('download-all').addEventListener('click', () => preparing($('download-all'), async (title) => {
  const done = photographs.filter(({state}) => state === 'done').map(asItIs), files = [], names = new Set();
  for (const one of done) {
    title(`Preparing ${files.length + 1} of ${done.length}`);
    let name = one.name;
    for (let n = 2; names.has(name); n++) name = one.name.replace(/(\.[^.]*)?$/, (extension) => ` (${n})${extension}`);
    names.add(name);
    files.push([name, await fileOf(one, () => {})]);
  }
  save(await zipped(files), 'restored.zip');
}));

const CRC = Uint32Array.from({length: 256}, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? n >>> 1 ^ 0xedb88320 : n >>> 1;
  return n;
});
/** An archive of `[name, Blob]`, without compression: photographs are compressed already. */
const zipped = async (files) => {
  const records = [], directory = [];
  let offset = 0;
  for (const [name, file] of files) {
    let crc = -1;
    for (const byte of new Uint8Array(await file.arrayBuffer())) crc = CRC[(crc ^ byte) & 255] ^ crc >>> 8;
    const bytes = new TextEncoder().encode(name);
    // Version, names in UTF-8, stored, 1 January 1980, checksum, sizes, length of the name.
    const about = [20, 0x800, 0, 0, 0x21].flatMap((short) => [short & 255, short >> 8]).concat(
      [~crc, file.size, file.size].flatMap((word) => [0, 8, 16, 24].map((bit) => word >>> bit & 255)),
      [bytes.length & 255, bytes.length >> 8, 0, 0]);
    const place = [0, 8, 16, 24].map((bit) => offset >>> bit & 255);
    records.push(Uint8Array.of(80, 75, 3, 4, ...about), bytes, file);
    directory.push(Uint8Array.of(80, 75, 1, 2, 20, 0, ...about, ...Array(10).fill(0), ...place), bytes);
    offset += 30 + bytes.length + file.size;
  }
  const size = directory.reduce((sum, {length}) => sum + length, 0);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x504b0506);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  return new Blob([...records, ...directory, end], {type: 'application/zip'});
};

// ---- the beginning

const choices = (field, values, about) => $(field).append(...values.map((value) => {
  const input = element('input', {type: 'radio', name: field, value});
  return element('label', {}, input, element('span', {textContent: about(value)}), element('small'));
}));
/** Sets up what the server offers. Returns whether it answered. */
const begin = async () => {
  $('address').textContent = location.href.replace(/[?#].*/, '');
  try {
    server = await fetch('status').then((answer) => answer.ok ? answer.json() : Promise.reject());
  } catch {
    $('silent').hidden = false;
    return false;
  }
  settings = {strength: 100, views: Object.keys(server.views)[0], weights: Object.keys(server.weights)[0]};
  choices('views', Object.keys(server.views), (name) => WORDS[name] ?? name);
  choices('weights', Object.keys(server.weights), (name) => server.weights[name]);
  for (const label of $('weights').querySelectorAll('label'))
    label.querySelector('small').textContent = WORDS[label.querySelector('input').value] ?? '';
  $('weights').hidden = Object.keys(server.weights).length < 2;
  $('samples').querySelector('ul').append(...server.samples.map((name) => {
    const button = element('button', {}, element('img', {src: `samples/${name}.png`, alt: `Sample: ${name}`}));
    button.addEventListener('click', async () => {
      const file = await (await fetch(`samples/${name}.png`)).blob();
      add([new File([file], `${name}.png`, {type: file.type})]);
    });
    return element('li', {}, button);
  }));
  document.body.classList.add('empty', 'ready');
  return true;
};
const begun = begin();
