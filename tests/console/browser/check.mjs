// Opens every page of a running console as its operator: `node check.mjs URL TOKEN_FILE [SHOTS_FOLDER]`.
// Each line that it prints is a fault. With a folder it writes pictures there.
import { readFileSync } from 'node:fs';
import { ended, examine, expect, launched, opened, widths } from './pages.mjs';

const [url, tokenFile, shots] = process.argv.slice(2);
const browser = await launched();

async function signedIn(options) {
  const page = await opened(browser, url, options);
  await page.goto(`${url}/console`);
  if (options.javaScriptEnabled !== false) await examine(page, 'login');
  if (shots && options.colorScheme && options.viewport === widths.desk) await page.screenshot({ path: `${shots}/login-${options.colorScheme}-desk.png` });
  await page.fill('#token', readFileSync(tokenFile, 'utf8').trim());
  await Promise.all([page.waitForURL(/\/console/), page.click('button')]);
  return page;
}

const first = await signedIn({ viewport: widths.desk });
const pathOf = async (link) => new URL(await first.locator(link).first().getAttribute('href'), url).pathname;
await first.goto(`${url}/console/requests?f=result:answered`);
const answered = await pathOf('tbody a');
await first.goto(`${url}/console/requests?f=status:429`);
const refused = await pathOf('tbody a');

// A key goes from issue to its end by mouse and keyboard, in dialogs, and its secret is shown once.
await first.goto(`${url}/console/keys?tenant=acme`);
await first.click('text=Issue a key');
await first.waitForSelector('dialog[open] #f-u');
if (shots) await first.screenshot({ path: `${shots}/issue-light-desk.png` });
await examine(first, 'the dialog to issue');
await first.keyboard.press('Escape');
expect(!(await first.locator('dialog[open]').count()), 'Escape does not close a form');
await first.click('text=Issue a key');
await first.fill('dialog #f-u', 'not a name');
await first.click('dialog button.first');
await first.waitForSelector('dialog [role=alert]');
expect((await first.inputValue('dialog #f-u')) === 'not a name', 'a refused form forgets what was written');
await first.fill('dialog #f-u', 'lena');
await first.fill('dialog #f-n', 'notebook');
await first.keyboard.press('Enter');
await first.waitForSelector('dialog .secret');
const secret = await first.locator('.secret').textContent();
expect(secret.startsWith('sk-hg-'), `no secret: ${secret}`);
await examine(first, 'the dialog with a secret');
await first.keyboard.press('Escape');
expect(await first.locator('dialog[open] .secret').count(), 'Escape loses a secret');
await first.click('dialog [data-copy]');
await first.waitForSelector('dialog .copy.done');
expect((await first.evaluate(() => navigator.clipboard.readText())) === secret, 'the button does not copy the secret');
await first.click('text=I have stored it');
await first.waitForSelector('td .bad');
expect(!(await first.content()).includes(secret), 'the secret is shown twice');
const rotate = await pathOf('text=Rotate');
const revoke = rotate.replace('rotate', 'revoke');
await first.click('text=Rotate');
await first.click('dialog button.first');
await first.waitForSelector('dialog .secret');
expect((await first.locator('.secret').textContent()) !== secret, 'rotating keeps the secret');

// Tables sort by number and by word, and copy as plain numbers.
await first.goto(`${url}/console/explore?by=user`);
const column = (at) => first.locator(`tbody tr > :nth-child(${at})`).allInnerTexts();
await first.click('th:has-text("Requests") button');
const numbers = (await column(3)).map((text) => Number(text.replaceAll(',', '')));
expect(numbers.length > 3 && numbers.every((number, at) => !at || number <= numbers[at - 1]), `requests are not sorted: ${numbers}`);
await first.click('th:has-text("User") button');
const names = await column(1);
expect(names.every((name, at) => !at || name >= names[at - 1]), `names are not sorted: ${names}`);
await first.click('.copy.table');
await first.waitForSelector('.copy.done');
const copied = (await first.evaluate(() => navigator.clipboard.readText())).split('\n');
expect(copied.length === names.length + 2 && copied.at(-1).split('\t').slice(2, 3).every((cell) => /^\d+$/.test(cell)), `a table copies badly: ${copied.at(-1)}`);

const months = await first.goto(`${url}/console/showback`).then(() => first.locator('.months a').evaluateAll((all) => all.map((one) => new URL(one.href)).map((one) => one.pathname + one.search)));
const pages = {
  overview: '/console', requests: '/console/requests', request: answered, refused, explore: '/console/explore?by=user',
  showback: months.at(-2), 'showback-open': months.at(-1), 'showback-user': `${months.at(-2).split('&')[0]}&by=user`, 'showback-empty': months[0],
  budgets: '/console/budgets', models: '/console/models', health: '/console/health',
  keys: '/console/keys?tenant=acme', 'new-key': '/console/keys/new?tenant=acme', rotate, revoke,
  usage: '/console/usage', changes: '/console/changes', preferences: '/console/preferences',
  empty: '/console/requests?f=tenant:globex&f=status:418', wrong: '/console/requests?q=colour:red', missing: '/console/nothing',
};
for (const colorScheme of ['light', 'dark']) {
  for (const [size, viewport] of Object.entries(widths)) {
    const page = await signedIn({ viewport, colorScheme });
    for (const [name, path] of Object.entries(pages)) {
      await page.goto(url + path);
      await examine(page, `${colorScheme} ${size} ${path}`);
      expect(await page.evaluate(() => document.fonts.check('14px "Source Sans 3"')), `${path}: no font`);
      if (shots) await page.screenshot({ path: `${shots}/${name}-${colorScheme}-${size}.png`, fullPage: size !== 'phone' });
      if (size === 'phone' && (await page.locator('#allcols').count())) {
        await page.check('#allcols');
        await examine(page, `${colorScheme} all columns ${path}`);
      }
    }
    await page.context().close();
  }
}

// With the Tab key alone the first stop is the way past the navigation.
await first.goto(`${url}/console/requests`);
await first.keyboard.press('Tab');
expect((await first.evaluate(() => document.activeElement.textContent)) === 'Skip to content', 'Tab does not begin with the way to the content');

// The theme of the footer wins over that of the system.
await first.click('button[value=dark]');
expect((await first.evaluate(() => getComputedStyle(document.body).backgroundColor)) === 'rgb(15, 22, 25)', 'the dark theme does not count');

// The month prints on paper without its navigation.
await first.goto(url + pages.showback);
await first.emulateMedia({ media: 'print' });
expect(!(await first.locator('.top').isVisible()), 'the navigation is printed');
await first.emulateMedia({ media: 'screen' });

// A browser far away shows its own time, once it has said where it is.
const far = await signedIn({ viewport: widths.desk, timezoneId: 'Asia/Tokyo' });
await far.waitForFunction(() => document.documentElement.dataset.zone === 'Asia/Tokyo');
await far.context().close();

// Without scripts the same forms are pages.
const plain = await signedIn({ viewport: widths.desk, javaScriptEnabled: false });
await plain.goto(`${url}/console/keys?tenant=acme`);
await plain.click('text=Issue a key');
await plain.fill('#f-u', 'omar');
await plain.click('button.first');
expect((await plain.locator('.secret').textContent()).startsWith('sk-hg-'), 'without scripts no key is issued');
await plain.context().close();

// The key ends, and says so.
await first.goto(`${url}/console/keys?tenant=acme`);
await first.click(`[href="${revoke}"]`);
await first.click('dialog button.danger');
await first.waitForSelector('.callout[role=status]');
expect((await first.textContent('.callout[role=status]')).includes('Revoked'), 'nothing says that the key has ended');
await first.click('text=Sign out');
await first.goto(`${url}/console`);
expect(first.url().includes('/login'), 'a session goes on after signing out');

await ended(browser, `${Object.keys(pages).length} pages, 2 themes, 3 widths`);
