// What every check in a browser needs: Chromium, axe-core, and the rules that each page must keep.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const home = createRequire(`${process.env.HEADGATE_BROWSER}/`);
const { chromium } = home('playwright-core');
const axe = readFileSync(home.resolve('axe-core/axe.min.js'), 'utf8');

export const widths = { desk: { width: 1440, height: 900 }, tablet: { width: 1024, height: 900 }, phone: { width: 390, height: 844 } };
export const faults = [];

export const launched = () => chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });

// A page whose faults are kept: errors of its scripts and of the CSP, requests to others, windows that open.
export async function opened(browser, url, options) {
  const context = await browser.newContext({ timezoneId: 'Europe/Berlin', permissions: ['clipboard-read', 'clipboard-write'], ...options });
  const page = await context.newPage();
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && !/status of 4/.test(message.text()) && faults.push(`${page.url()}: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(`${page.url()}: ${error}`));
  page.on('request', (request) => request.url().startsWith(url) || faults.push(`asks elsewhere: ${request.url()}`));
  page.on('dialog', (dialog) => { faults.push(`${page.url()} runs the script of a stranger: ${dialog.message()}`); dialog.dismiss(); });
  return page;
}

// axe is put into the page past the CSP, which stays as it is for the page's own parts.
export async function examine(page, name) {
  const client = await page.context().newCDPSession(page);
  await client.send('Runtime.evaluate', { expression: axe });
  const { result } = await client.send('Runtime.evaluate', {
    expression: `axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((r) => JSON.stringify(r.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(' | '))))`,
    awaitPromise: true, returnByValue: true,
  });
  for (const fault of JSON.parse(result.value)) faults.push(`${name}: axe ${fault}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) faults.push(`${name}: ${wide} px too wide`);
}

export function expect(holds, fault) {
  if (!holds) faults.push(fault);
}

export async function ended(browser, said) {
  await browser.close();
  console.log(faults.length ? [...new Set(faults)].join('\n') : `${said}: no fault`);
  process.exit(faults.length ? 1 : 0);
}
