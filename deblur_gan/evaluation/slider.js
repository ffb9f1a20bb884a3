'use strict';
/** Stacks pictures of one size, and draws a line between neighbours that mouse, touch and arrow keys move.
 *
 * @param {HTMLImageElement[]} images two or more, from left to right; `alt` is shown as the name. They move into the result.
 * @returns {HTMLDivElement} an element of class `compare`, styled by slider.css.
 * @example document.body.append(compareImages([blurred, restored]));
 */
function compareImages(images) {
  const box = document.createElement('div');
  box.className = 'compare';
  const stack = document.createElement('div');
  stack.className = 'stack';
  const names = images.map((image) => {
    const name = document.createElement('span');
    name.textContent = image.alt;
    name.ariaHidden = true;
    image.draggable = false;
    return name;
  });
  stack.append(...images, ...names);
  box.append(stack);
  const ranges = images.slice(1).map((right, i) => {
    const range = document.createElement('input');
    Object.assign(range, {type: 'range', min: 0, max: 100, step: 0.5, value: 100 * (i + 1) / images.length});
    const label = document.createElement('label');
    label.append(`${images[i].alt} | ${right.alt}`, range);
    range.addEventListener('input', () => move(i, range.valueAsNumber));
    box.append(label);
    return range;
  });
  const move = (moved, value) => {
    ranges.forEach((range, i) => {  // lines do not cross: one pushes the others
      const at = range.valueAsNumber;
      range.value = i < moved ? Math.min(at, value) : i > moved ? Math.max(at, value) : value;
      images[i + 1].style.clipPath = `inset(0 0 0 ${range.value}%)`;
      names[i + 1].style.left = `${range.value}%`;
      names[i].style.right = `${100 - range.valueAsNumber}%`;
    });
  };
  const positionOf = (event) => {
    const place = stack.getBoundingClientRect();
    return Math.min(Math.max(100 * (event.clientX - place.left) / place.width, 0), 100);
  };
  let held = 0;
  stack.addEventListener('pointerdown', (event) => {
    const at = positionOf(event);
    held = ranges.slice(1).filter((right, i) => at > (ranges[i].valueAsNumber + right.valueAsNumber) / 2).length;
    stack.setPointerCapture(event.pointerId);
    move(held, at);
  });
  stack.addEventListener('pointermove', (event) => { if (event.buttons & 1) move(held, positionOf(event)); });
  move(0, ranges[0].valueAsNumber);
  return box;
}
