// Each role in a browser of its own: `node roles.mjs URL ROLES [SHOTS_FOLDER]`. ROLES is JSON: by name the session's
// cookie, the paths that the role may open, and those that it may not. Each line printed is a fault.
import { ended, examine, expect, faults, launched, opened, widths } from './pages.mjs';

const [url, text, shots] = process.argv.slice(2);
const { roles, secrets } = JSON.parse(text);
const browser = await launched();
const pages = {};

for (const [name, role] of Object.entries(roles)) {
  pages[name] = await opened(browser, url, { viewport: widths.desk, timezoneId: 'UTC', colorScheme: name === 'admin' ? 'dark' : 'light' });
  await pages[name].context().addCookies([{ name: 'headgate-session', value: role.session, url }]);
}
const status = async (page, path) => (await page.goto(url + path)).status();

// Every page of the role opens without fault; every other one says that the role is missing.
const links = {};
for (const [name, role] of Object.entries(roles)) {
  links[name] = new Set();
  for (const path of role.open) {
    const code = await status(pages[name], path);
    expect(code === 200, `${name} ${path}: ${code}`);
    await examine(pages[name], `${name} ${path}`);
    if (shots) await pages[name].screenshot({ path: `${shots}/as-${name}${path.replaceAll('/', '-')}.png`, fullPage: true });
    for (const link of await pages[name].locator('a[href^="/console"]').evaluateAll((all) => all.map((one) => one.getAttribute('href')))) links[name].add(link);
  }
  for (const path of role.shut) {
    const code = await status(pages[name], path);
    expect(code === 403, `${name} ${path}: ${code} instead of 403`);
  }
}

// Every URL that any role has seen, opened by every role: nothing of what others own is shown.
const all = [...new Set(Object.values(links).flatMap((found) => [...found]))].filter((link) => !link.includes('format='));
for (const [name, role] of Object.entries(roles)) {
  for (const link of all) {
    const answer = await pages[name].context().request.get(url + link);
    const body = (await answer.text()).replace(/(?:href|value|aria-label|hx-get|hx-post|action)="[^"]*"|<i>.*?<\/span>|Drop <b>.*?<\/b>/g, '');
    for (const word of role.hidden) if (body.includes(word)) faults.push(`${name} sees ${word} at ${link}`);
    expect([200, 403, 404, 409, 422].includes(answer.status()), `${name} ${link}: ${answer.status()}`);
  }
}

// Two users side by side: each sees what is their own, and one cannot touch the other's key.
const [user, other] = [pages.user, pages.other];
for (const [page, own, foreign] of [[user, secrets.user, secrets.other], [other, secrets.other, secrets.user]]) {
  await page.goto(`${url}/console/keys?tenant=acme`);
  const shown = await page.textContent('main');
  expect(shown.includes(own), `a user does not see their key ${own}`);
  expect(!shown.includes(foreign), `a user sees the key ${foreign}`);
  for (const form of ['rotate', 'revoke']) {
    expect((await status(page, `/console/keys/${foreign}/${form}`)) === 404, `a user may ${form} ${foreign}`);
    const sent = await page.evaluate(([path]) => fetch(path, { method: 'POST', body: new URLSearchParams({ overlap: '0' }) }).then((answer) => answer.status), [`/console/keys/${foreign}/${form}`]);
    expect(sent === 404, `a user has sent ${form} of ${foreign}: ${sent}`);
  }
}
await user.goto(`${url}/console/keys?tenant=acme`);
await user.click('text=Rotate');
await user.waitForSelector('dialog select');
await user.click('dialog button.first');
await user.waitForSelector('dialog .secret');
await other.goto(`${url}/console/keys?tenant=acme`);
expect((await other.textContent('main')).includes('works'), 'one rotation touches another key');

// The admin issues and revokes keys of the tenant; finance sees no button for it.
await pages.finance.goto(`${url}/console/keys?tenant=acme`);
expect(!(await pages.finance.locator('text=Issue a key').count()), 'finance may issue');
await pages.admin.goto(`${url}/console/keys?tenant=acme`);
await pages.admin.click('text=Issue a key');
await pages.admin.waitForSelector('dialog #f-t');
expect((await pages.admin.locator('dialog #f-t option').allInnerTexts()).join() === 'acme', 'an admin may issue elsewhere');
await pages.admin.fill('dialog #f-u', 'rita');
await pages.admin.fill('dialog #f-n', '<img src=x onerror=alert(1)>');
await pages.admin.fill('dialog #f-l', '5,000');
await pages.admin.click('dialog button.first');
await pages.admin.waitForSelector('dialog .secret');
await pages.admin.click('text=I have stored it');
await pages.admin.waitForSelector('text=<img src=x');
await pages.admin.click('tr:has-text("rita") >> text=Revoke');
await pages.admin.click('dialog button.danger');
await pages.admin.waitForSelector('.callout[role=status]');

// Words of strangers are words: the script in a user's name, a client's name and a model's name is shown.
for (const path of ['/console/requests', '/console/requests/odd', '/console/explore?by=user', '/console/explore?by=model', '/console/budgets', '/console/showback?month=2027-01&by=user', '/console/showback?month=2027-01&by=model']) {
  await pages.operator.goto(url + path);
  expect(!(await pages.operator.evaluate(() => window.hacked)), `${path} runs the script of a stranger`);
  expect(!(await pages.operator.locator('main script, main img, main iframe').count()), `${path} has an element of a stranger`);
}
await pages.operator.goto(`${url}/console/requests/odd`);
expect((await pages.operator.textContent('main')).includes('<script>'), 'the name of a user is not shown');

// A file for a spreadsheet has no formula of a stranger, and a copied table neither.
for (const path of ['/console/requests?format=csv', '/console/explore?by=user&since=30d&format=csv', '/console/showback?month=2027-01&by=user&format=csv']) {
  const cells = (await (await pages.operator.context().request.get(url + path)).text()).split(/[,\r\n]+/);
  expect(!cells.some((cell) => /^"?[=@]/.test(cell)), `${path} has a formula`);
}
await pages.operator.goto(`${url}/console/explore?by=user`);
await pages.operator.click('.copy.table');
await pages.operator.waitForSelector('.copy.done');
expect(!(await pages.operator.evaluate(() => navigator.clipboard.readText())).split(/[\t\n]/).some((cell) => /^[=@]/.test(cell)), 'a copied table has a formula');

// Operators close a month, in a dialog. Nobody else is asked.
await pages.operator.goto(`${url}/console/showback?month=2026-12`);
await pages.operator.click('text=Close the month');
await pages.operator.waitForSelector('dialog h1');
await pages.operator.click('dialog button.first');
await pages.operator.waitForSelector('.stamp.ok');

// The choice of a time zone is kept.
await user.goto(`${url}/console/preferences`);
await user.selectOption('#f-z', 'America/New_York');
await user.click('main button.first');
await user.waitForSelector('html[data-zone="America/New_York"]');

await ended(browser, `${Object.keys(roles).length} roles, ${all.length} addresses for each`);
