// The customers: a steady few requests a second to the gateway. Of orders so many that a window of
// 15 seconds (5 minutes, twenty times as fast) has twice the 100 that a balance is judged from; not
// so many that those that wait for a locked table take all sockets.
const http = require('http');

const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });

const visit = (path) => {
  const request = http.get({ host: '172.20.0.2', port: 80, path, agent, timeout: 5000 }, (response) => response.resume());
  request.on('timeout', () => request.destroy());
  request.on('error', () => {});
};

const every = (milliseconds, path) => setInterval(() => visit(path), milliseconds);
every(80, '/catalog');
every(70, '/order');
every(1700, '/login');
