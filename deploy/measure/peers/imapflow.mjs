// Fetches every message of the INBOX of each mailbox, all mailboxes at once, and prints how many there were and their bytes.
import { ImapFlow } from 'imapflow';

const [host, port, ...mailboxes] = process.argv.slice(2);
const pass = process.env.POSTROOM_BENCH_PASSWORD;
let messages = 0;
let bytes = 0;

async function read(user) {
  const client = new ImapFlow({ host, port: Number(port), secure: true, auth: { user, pass }, logger: false });
  await client.connect();
  const lock = await client.getMailboxLock('INBOX', { readOnly: true });
  for await (const message of client.fetch('1:*', { uid: true, flags: true, internalDate: true, source: true })) {
    messages += 1;
    bytes += message.source.length;
  }
  lock.release();
  await client.logout();
}

await Promise.all(mailboxes.map(read));
console.log(`${messages} ${bytes}`);
