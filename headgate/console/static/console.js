// Copies, sorts, and opens forms as dialogs. Without it every page works: forms are pages of their own.
const dialog = document.getElementById('dialog')
const title = document.title

// A form that htmx has put into the dialog opens it. One with a secret closes by its button alone.
document.addEventListener('htmx:after:swap', () => {
  if (!dialog.querySelector('#sheet')) return
  prepare(dialog)
  if (!dialog.open) dialog.showModal()
  const first = dialog.querySelector('[aria-invalid], .secret, input:not([type=hidden]), select, .actions a, .actions button')
  first?.focus()
})
dialog.addEventListener('cancel', (event) => { if (dialog.querySelector('.secret')) event.preventDefault() })
dialog.addEventListener('close', () => { document.title = title; dialog.replaceChildren() })
dialog.addEventListener('click', (event) => {
  const leave = event.target.closest('[data-close]')
  if (leave) { event.preventDefault(); dialog.close() }
})

async function copied(button, text) {
  await navigator.clipboard.writeText(text)
  button.classList.add('done')
  document.getElementById('said').textContent = 'Copied'
  setTimeout(() => { button.classList.remove('done'); document.getElementById('said').textContent = '' }, 2000)
}

// The text of a cell as a spreadsheet reads it: plain digits, a real minus, nothing for a dash.
function plain(cell) {
  const text = cell.innerText.trim().replace(/\s+/g, ' ')
  if (text === '–') return ''
  const number = text.replace(/,(?=\d{3})/g, '').replace('−', '-')
  return /^[+-]?\d+(\.\d+)?$/.test(number) ? number : text
}

function asTable(table) {
  return [...table.rows].map((row) => [...row.cells].map((cell) => plain(cell).replace(/^[=@]/, "'$&")).join('\t')).join('\n')
}

// The value of a cell for sorting: its number or time if it has one, else its text.
function key(row, at) {
  const cell = row.cells[at]
  const time = cell.querySelector('time')
  if (time) return Date.parse(time.dateTime)
  const text = plain(cell)
  return text === '' ? -Infinity : Number.isNaN(Number(text)) ? text.toLowerCase() : Number(text)
}

function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0
  return typeof a === 'number' ? -1 : 1
}

function sort(table, at, header) {
  const isDown = header.getAttribute('aria-sort') !== 'descending' && (header.getAttribute('aria-sort') === 'ascending' || header.classList.contains('n'))
  for (const other of table.tHead.querySelectorAll('[aria-sort]')) other.removeAttribute('aria-sort')
  header.setAttribute('aria-sort', isDown ? 'descending' : 'ascending')
  const body = table.tBodies[0]
  const rows = [...body.rows].map((row) => [key(row, at), row])
  rows.sort(([a], [b]) => (isDown ? compare(b, a) : compare(a, b)))
  body.append(...rows.map(([, row]) => row))
}

function sortable(table) {
  const headers = [...table.tHead.rows[0].cells]
  headers.forEach((header, at) => {
    if (!header.innerText.trim()) return
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'sort'
    button.append(...header.childNodes)
    button.addEventListener('click', () => sort(table, at, header))
    header.append(button)
  })
  const more = table.closest('section')?.querySelector('.sec')
  if (!more) return
  const copy = document.getElementById('copy-table').content.firstElementChild.cloneNode(true)
  copy.addEventListener('click', () => copied(copy, asTable(table)))
  more.append(copy)
}

function prepare(root) {
  for (const button of root.querySelectorAll('[data-copy]')) {
    button.hidden = false
    button.addEventListener('click', () => copied(button, button.dataset.copy))
  }
  for (const table of root.querySelectorAll('table.sortable')) sortable(table)
}
prepare(document)
document.querySelector('nav [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' })

// Times are in the reader's zone. Who has not chosen one gets that of the browser, once.
const { zone, chosen } = document.documentElement.dataset
const here = Intl.DateTimeFormat().resolvedOptions().timeZone
if (chosen === 'no' && here && here !== zone && !sessionStorage.getItem('zone')) {
  sessionStorage.setItem('zone', here)
  fetch('/console/preferences', { method: 'POST', body: new URLSearchParams({ zone: here }), redirect: 'manual' })
    .then((answer) => { if (answer.type === 'opaqueredirect') location.reload() })
}
