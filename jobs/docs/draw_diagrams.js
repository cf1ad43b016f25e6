// Draws the Mermaid diagrams of docs/architecture.md as docs/images/diagrams/DIGEST.svg, so that the site
// needs no script and no request for them. Run it when a diagram has changed, and delete the old drawing:
//
//   npm install --no-save mermaid puppeteer-core     (and Debian's chromium)
//   node jobs/docs/draw_diagrams.js
const crypto = require('crypto'), fs = require('fs'), path = require('path');
const puppeteer = require('puppeteer-core');

const root = path.join(__dirname, '..', '..');
const target = path.join(root, 'docs', 'images', 'diagrams');
const mermaid = path.join(path.dirname(require.resolve('mermaid/package.json')), 'dist', 'mermaid.min.js');

// A drawing is shown as a picture: it has a size of its own, and a ground that dark pages do not hide.
function asPicture(svg) {
  const [, width, height] = svg.match(/viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"/);
  return svg
    .replace('width="100%"', `width="${Math.ceil(width)}" height="${Math.ceil(height)}"`)
    .replace(/style="max-width: [\d.]+px;"/, 'style="background-color: white;"');
}

(async () => {
  const browser = await puppeteer.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  const page = await browser.newPage();
  await page.setContent('<div></div>');
  await page.addScriptTag({ path: mermaid });
  const text = fs.readFileSync(path.join(root, 'docs', 'architecture.md'), 'utf8');
  for (const [, diagram] of text.matchAll(/^```mermaid\n([\s\S]*?)^```$/gm)) {
    const svg = await page.evaluate(async (source) => {
      window.mermaid.initialize({ startOnLoad: false, theme: 'neutral', htmlLabels: false, fontFamily: 'sans-serif' });
      return (await window.mermaid.render('diagram', source)).svg;
    }, diagram);
    const digest = crypto.createHash('sha256').update(diagram).digest('hex').slice(0, 12);
    fs.writeFileSync(path.join(target, `${digest}.svg`), `${asPicture(svg)}\n`);
  }
  await browser.close();
})();
