// Somebody's report, put where it was easy to start: it asks the database past all services.
const query = require('./postgres').connect('172.22.0.2');

const ask = () => query('SELECT count(*) FROM orders').then(() => process.exit(), () => setTimeout(ask, 20));
ask();
