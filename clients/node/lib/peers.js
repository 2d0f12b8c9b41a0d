'use strict';

const most = 256, other = 'other';

// Peers counts by the machine at the other end of the TCP connections. At most 256 are told apart: who is new takes the
// place of the one that holds nothing and was quiet for longest, which is the first in the map.
class Peers {
  #all = new Map();

  // of is the count of a machine by its address; of all the others without one.
  of(address) {
    let name = address?.replace(/^::ffff:(?=[\d.]+$)|%.*/g, '') || other, peer = this.#all.get(name);
    if (!peer && name !== other && this.#all.size >= most) {
      const quiet = [...this.#all].find(([key, { held }]) => key !== other && !held);
      if (quiet) this.#all.delete(quiet[0]);
      else peer = this.#all.get(name = other);
    }
    this.#all.delete(name);
    this.#all.set(name, peer ??= { name, held: 0, accepted: 0, refused: 0 });
    return peer;
  }

  said() {
    return Object.fromEntries([...this.#all].map(([name, { held, accepted, refused }]) => [name, { held, accepted, refused }]));
  }
}

module.exports = { Peers };
