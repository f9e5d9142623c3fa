// Lists goods; Redis is its cache.
const http = require('http');
const faults = require('./faults');
const redis = require('./redis').connect('172.22.0.3');

const BODY = 'goods '.repeat(300);

const server = http.createServer((request, response) => {
  const answer = () => redis('GET goods').then(
    () => response.end(BODY),
    () => { response.statusCode = 503; response.end(); },
  );
  // Longer than the gateway is willing to wait.
  setTimeout(answer, faults.isOn('gateway-timeout') ? 1500 : 0);
});
// Nobody chose this backlog: it is what a framework might come with.
server.listen({ port: 3002, host: '0.0.0.0', backlog: 8 });
