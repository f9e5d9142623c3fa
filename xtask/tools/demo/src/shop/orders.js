// Takes orders; they are in PostgreSQL.
const http = require('http');
const query = require('./postgres').connect('172.22.0.2');

const server = http.createServer((request, response) => {
  if (request.url === '/health') return response.end('ok\n');
  return query('INSERT INTO orders DEFAULT VALUES').then(
    () => response.end('ordered\n'),
    () => { response.statusCode = 503; response.end(); },
  );
});
server.keepAliveTimeout = 60000;
server.listen(3003, '0.0.0.0');
