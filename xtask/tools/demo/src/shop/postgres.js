// As much of PostgreSQL's protocol as simple queries take, over one connection that comes back.
const net = require('net');

const message = (type, body) => {
  const text = Buffer.from(body, 'latin1');
  const head = Buffer.alloc(type.length + 4);
  head.write(type, 0);
  head.writeInt32BE(text.length + 4, type.length);
  return Buffer.concat([head, text]);
};

exports.connect = (host) => {
  let socket = null;
  let ready = false;
  let waiting = [];
  const open = () => {
    let received = Buffer.alloc(0);
    ready = false;
    socket = net.connect(5432, host, () => {
      socket.write(message('', '\0\x03\0\0user\0postgres\0database\0postgres\0\0'));
    });
    socket.on('data', (data) => {
      received = Buffer.concat([received, data]);
      while (received.length >= 5) {
        const length = received.readInt32BE(1) + 1;
        if (received.length < length) return;
        // Z: ready for the next query, whatever became of the last.
        if (received[0] === 0x5a) {
          if (ready) waiting.shift()?.resolve();
          ready = true;
        }
        received = received.subarray(length);
      }
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      waiting.forEach((one) => one.reject(new Error('the database is gone')));
      waiting = [];
      setTimeout(open, 200);
    });
  };
  open();
  return (query) => new Promise((resolve, reject) => {
    if (!ready || socket.readyState !== 'open') return reject(new Error('the database is not there'));
    waiting.push({ resolve, reject });
    socket.write(message('Q', `${query}\0`));
  });
};
