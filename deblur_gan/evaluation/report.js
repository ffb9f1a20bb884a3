for (const table of document.querySelectorAll('table.images')) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const names = new Intl.Collator('en', {numeric: true});
  for (const head of heads) head.querySelector('button')?.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const compare = (a, b) => {
      a = a.cells[head.cellIndex]; b = b.cells[head.cellIndex];
      if (!('value' in a.dataset)) return (down ? -1 : 1) * names.compare(a.textContent, b.textContent);
      a = Number(a.dataset.value); b = Number(b.dataset.value);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return (down ? -1 : 1) * (a < b ? -1 : a > b ? 1 : 0);
    };
    body.append(...[...body.rows].sort(compare));
  });
}
// On a narrow screen the panels are never in view together. Made from their pictures, so that the page holds each once.
const compare = (example) => {
  const [sharp, blurred, restored] = [...example.querySelectorAll('.panel img')].map((image) => image.cloneNode());
  const slider = compareImages([blurred, restored, sharp]);
  slider.style.maxWidth = `min(50rem, ${80 * sharp.width / sharp.height}vh)`;  // all of a tall picture on the screen
  example.querySelector('.panels').before(slider);
};
const show = (example) => {
  const images = [...example.querySelectorAll('.panel img')];
  const {naturalWidth: width, naturalHeight: height} = images[0];
  const across = Math.min(Number(example.dataset.window), width);
  const down = Math.min(Number(example.dataset.window), height);
  const move = (x, y) => {
    x = Math.round(Math.min(Math.max(x, 0), width - across));
    y = Math.round(Math.min(Math.max(y, 0), height - down));
    example.dataset.x = x;
    example.dataset.y = y;
    for (const frame of example.querySelectorAll('.frame')) {
      frame.style.left = `${100 * x / width}%`;
      frame.style.top = `${100 * y / height}%`;
      frame.style.width = `${100 * across / width}%`;
      frame.style.height = `${100 * down / height}%`;
    }
    example.querySelectorAll('canvas').forEach((canvas, i) => {
      const context = canvas.getContext('2d');
      canvas.height = Math.round(canvas.width * down / across);
      context.imageSmoothingEnabled = false;
      context.drawImage(images[i], x, y, across, down, 0, 0, canvas.width, canvas.height);
    });
  };
  const follow = (event) => {
    const place = event.currentTarget.getBoundingClientRect();
    move((event.clientX - place.left) / place.width * width - across / 2,
      (event.clientY - place.top) / place.height * height - down / 2);
  };
  for (const picture of example.querySelectorAll('.picture')) {
    picture.addEventListener('click', follow);
    picture.addEventListener('pointermove', (event) => { if (event.buttons & 1) follow(event); });
    picture.querySelector('img').draggable = false;
  }
  example.addEventListener('keydown', (event) => {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!way || !event.target.matches('.frame')) return;
    event.preventDefault();
    const step = event.shiftKey ? across / 2 : 8;
    move(Number(example.dataset.x) + way[0] * step, Number(example.dataset.y) + way[1] * step);
  });
  move(Number(example.dataset.x), Number(example.dataset.y));
};
addEventListener('load', () => document.querySelectorAll('.example').forEach((example) => {
  show(example);
  compare(example);
}));
