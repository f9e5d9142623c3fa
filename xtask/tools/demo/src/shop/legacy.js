// What is started in the catalog's place by mistake: an older program with the same port.
require('http').createServer((request, response) => response.end()).listen(3002, '0.0.0.0');
