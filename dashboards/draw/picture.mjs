// Takes pictures of the dashboards that a running demo draws: URL of the page, folder, and pairs of
// name and query string, or of name and the URL of another page with a table.
import { chromium } from 'playwright-core';

const [page, folder, ...pictures] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update'],
});
const tab = await browser.newPage({ viewport: { width: 1580, height: 900 } });
const errors = [];
tab.on('pageerror', (error) => errors.push(String(error)));
for (const picture of pictures) {
  const [name, query] = picture.split('?');
  const isPage = query.startsWith('http');
  await tab.goto(isPage ? query : `${page}?${query}`);
  const drawn = isPage ? 'tbody tr' : 'body[data-drawn=yes]';
  await tab.waitForSelector(drawn, { timeout: 30000 }).catch(() => errors.push(`${name} was not drawn`));
  await tab.waitForTimeout(1500);
  await tab.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
}
await browser.close();
if (errors.length) {
  console.error(errors.join('\n'));
  process.exit(1);
}
