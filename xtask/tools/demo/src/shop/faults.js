// Which faults are on: the demo writes their names into a file, one a line.
const fs = require('fs');

const FILE = `${__dirname}/broken`;
let known = '';
setInterval(() => {
  try { known = fs.readFileSync(FILE, 'utf8'); } catch { known = ''; }
}, 100);

exports.isOn = (fault) => known.split('\n').includes(fault);
