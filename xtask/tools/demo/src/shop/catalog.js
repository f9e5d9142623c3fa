// Lists goods; Redis is its cache.
const http = require('http');
const faults = require('./faults');
const redis = require('./redis').connect('172.22.0.3');

const BODY = 'goods '.repeat(300);

let asked = 0;

const server = http.createServer((request, response) => {
  asked += 1;
  if (faults.isOn('http-errors') && asked % 3 === 0) {
    response.statusCode = 500;
    response.end();
    return;
  }
  const answer = () => redis('GET goods').then(
    () => response.end(BODY),
    () => { response.statusCode = 503; response.end(); },
  );
  // Longer than the gateway is willing to wait.
  setTimeout(answer, faults.isOn('gateway-timeout') ? 1500 : 0);
});
// Nobody chose this backlog: it is what a framework might come with.
server.listen({ port: 3002, host: '0.0.0.0', backlog: 8 });
