// The customers: a steady few requests a second to the gateway.
const http = require('http');

// Idle connections are closed sooner than the gateway closes them (75 s).
const agent = new http.Agent({ keepAlive: true, maxSockets: 16, timeout: 30000 });

const visit = (path) => {
  const request = http.get({ host: '172.20.0.2', port: 80, path, agent, timeout: 5000 }, (response) => response.resume());
  request.on('timeout', () => request.destroy());
  request.on('error', () => {});
};

const every = (milliseconds, path) => setInterval(() => visit(path), milliseconds);
every(80, '/catalog');
every(100, '/order');
every(1700, '/login');
