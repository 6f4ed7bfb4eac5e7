/** A process that holds a lease with one key: URL KEY TTL_MS. Says `held`, and `lost` if it is. */
import { openClusterStore } from "../open.ts";

const [url, key, ttlMs] = process.argv.slice(2);
const store = openClusterStore(url);
const lease = await store.grantLease(Number(ttlMs));
await store.transact([], [{ put: key, value: "held", lease: lease.id }]);
console.log("held");
void lease.lost.then(() => console.log("lost"));
// Its end is that of the process that started this one; until then it keeps this one up.
process.stdin.resume().once("end", () => process.exit());
