// What is in the shop for this fault: opens connections to Redis, one after the other, and keeps
// them, as a client without a pool does.
const net = require('net');

const kept = [];
setInterval(() => {
  const socket = net.connect(6379, '172.22.0.3');
  socket.on('error', () => {});
  kept.push(socket);
}, 50);
