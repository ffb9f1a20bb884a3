// Photographs that are pasted, or dropped beside the field for them, are put into that field.
const take = (event, files) => {
  const input = document.querySelector('#photographs input[type=file]');
  if (event.defaultPrevented || !input || !files?.length) return;
  event.preventDefault();
  input.files = files;
  input.dispatchEvent(new Event('change', {bubbles: true}));
};
addEventListener('paste', (event) => take(event, event.clipboardData?.files));
addEventListener('drop', (event) => take(event, event.dataTransfer?.files));
// Both, or a drop on what the pointer has only just come to is lost.
for (const kind of ['dragenter', 'dragover']) addEventListener(kind, (event) => event.preventDefault());
