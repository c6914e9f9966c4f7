// Opens every page of a running console in Chromium: `node check.mjs URL TOKEN_FILE [SHOTS_FOLDER]`.
// Each line that it prints is a fault. With a folder it writes pictures there.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const home = createRequire(`${process.env.HEADGATE_BROWSER}/`);
const { chromium } = home('playwright-core');
const axe = readFileSync(home.resolve('axe-core/axe.min.js'), 'utf8');
const [url, tokenFile, shots] = process.argv.slice(2);
const faults = [];
const widths = { desk: { width: 1440, height: 900 }, tablet: { width: 1024, height: 900 }, phone: { width: 390, height: 844 } };

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });

async function signedIn(options) {
  // axe is put into the page past the CSP, which stays as it is for the page's own parts.
  const context = await browser.newContext({ timezoneId: 'Europe/Berlin', ...options });
  const page = await context.newPage();
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && !/status of 4/.test(message.text()) && faults.push(`${page.url()}: ${message.text()}`));
  page.on('request', (request) => request.url().startsWith(url) || faults.push(`asks elsewhere: ${request.url()}`));
  await page.goto(`${url}/console`);
  await page.fill('#token', readFileSync(tokenFile, 'utf8').trim());
  await Promise.all([page.waitForURL(/\/console/), page.click('button')]);
  return page;
}

async function check(page, path, name) {
  await page.goto(url + path);
  const client = await page.context().newCDPSession(page);
  await client.send('Runtime.evaluate', { expression: axe });
  const { result } = await client.send('Runtime.evaluate', {
    expression: `axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((r) => JSON.stringify(r.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(' | '))))`,
    awaitPromise: true, returnByValue: true,
  });
  for (const fault of JSON.parse(result.value)) faults.push(`${name} ${path}: axe ${fault}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) faults.push(`${name} ${path}: ${wide} px too wide`);
  if (!(await page.evaluate(() => document.fonts.check('14px "Source Sans 3"')))) faults.push(`${name} ${path}: no font`);
}

const first = await signedIn({ viewport: widths.desk });
await first.goto(`${url}/console/requests?f=result:answered`);
const answered = new URL(await first.locator('tbody a').first().getAttribute('href'), url).pathname;
await first.goto(`${url}/console/requests?f=status:429`);
const refused = new URL(await first.locator('tbody a').first().getAttribute('href'), url).pathname;

// A key goes from issue to its end by mouse and keyboard, and its secret is shown once.
await first.goto(`${url}/console/keys?tenant=acme`);
await first.click('text=Issue a key');
await first.fill('#f-u', 'lena');
await first.fill('#f-n', 'notebook');
await first.keyboard.press('Enter');
const secret = await first.locator('.secret').textContent();
if (!secret.startsWith('sk-hg-')) faults.push(`no secret: ${secret}`);
await first.click('text=I have stored it');
if ((await first.content()).includes(secret)) faults.push('the secret is shown twice');
const rotate = new URL(await first.locator('text=Rotate').first().getAttribute('href'), url).pathname;
const revoke = rotate.replace('rotate', 'revoke');

const pages = {
  overview: '/console', requests: '/console/requests', request: answered, refused, explore: '/console/explore?by=user',
  keys: '/console/keys?tenant=acme', 'new-key': '/console/keys/new?tenant=acme', rotate, revoke,
  usage: '/console/usage', changes: '/console/changes', preferences: '/console/preferences',
  empty: '/console/requests?f=tenant:globex&f=status:418', wrong: '/console/requests?q=colour:red', missing: '/console/nothing',
};
for (const colorScheme of ['light', 'dark']) {
  for (const [size, viewport] of Object.entries(widths)) {
    const page = await signedIn({ viewport, colorScheme });
    for (const [name, path] of Object.entries(pages)) {
      await check(page, path, `${colorScheme} ${size}`);
      if (shots) await page.screenshot({ path: `${shots}/${name}-${colorScheme}-${size}.png`, fullPage: size !== 'phone' });
    }
    await page.context().close();
  }
}

// With the Tab key alone the first stop is the way past the navigation.
await first.goto(`${url}/console/requests`);
await first.keyboard.press('Tab');
if ((await first.evaluate(() => document.activeElement.textContent)) !== 'Skip to content') faults.push('Tab does not begin with the way to the content');

// The theme of the footer wins over that of the system.
await first.click('button[value=dark]');
if ((await first.evaluate(() => getComputedStyle(document.body).backgroundColor)) !== 'rgb(15, 22, 25)') faults.push('the dark theme does not count');

// The key ends, and says so.
await first.goto(url + revoke);
await first.click('button.danger');
if (!(await first.textContent('[role=status]')).includes('Revoked')) faults.push('nothing says that the key has ended');
await first.click('text=Sign out');
await first.goto(`${url}/console`);
if (!first.url().includes('/login')) faults.push('a session goes on after signing out');

await browser.close();
if (faults.length) console.log([...new Set(faults)].join('\n'));
else console.log(`${Object.keys(pages).length} pages, 2 themes, 3 widths: no fault`);
process.exit(faults.length ? 1 : 0);
