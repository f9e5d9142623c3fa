// Signs users in; sessions are in Redis.
const http = require('http');
const faults = require('./faults');
const redis = require('./redis').connect('172.22.0.3');

const lastUse = new WeakMap();

const server = http.createServer((request, response) => {
  const { socket } = request;
  const idle = Date.now() - (lastUse.get(socket) ?? Date.now());
  if (faults.isOn('keepalive-resets') && idle > 1000) {
    // What a server does that has just given an idle connection up: the request meets a reset.
    socket.resetAndDestroy();
    return;
  }
  redis(`SET session:${idle % 100} ${Date.now()} EX 60`).then(
    () => response.end('welcome\n'),
    () => { response.statusCode = 503; response.end(); },
  ).finally(() => lastUse.set(socket, Date.now()));
});
server.keepAliveTimeout = 60000;
server.listen(3001, '0.0.0.0');
