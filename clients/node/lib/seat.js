'use strict';

// Seat is one connection, or one request under way, that was let in. It is a short request first or held at once; held, it
// can be picked; picked, it lingers until it has ended.
class Seat {
  constructor(gate, id, address, { leave = () => {}, force = () => {} }, link) {
    Object.assign(this, { gate, id, address, leave, force, link }); // link: it is another worker's
    this.peer = gate.peers.of(address);
    this.peer.held++;
    this.state = 'new';
    this.back = false;
  }

  // hold says that it lasts. A short request is not held.
  hold() {
    if (this.state !== 'new' && this.state !== 'request') return;
    const { gate } = this;
    gate.requests.delete(this);
    this.state = 'held';
    gate.held.add(this);
    if (!this.link) gate.own.add(this);
    gate.total.accepted++;
    this.peer.accepted++;
    this.tell('held');
  }

  request() {
    this.state = 'request';
    this.gate.requests.add(this);
    this.tell('request');
  }

  // returned says that the client was connected to this service before.
  returned() {
    if (this.back) return;
    this.back = true;
    this.gate.total.returned = (this.gate.total.returned ?? 0) + 1;
    this.tell('returned');
  }

  // evict has it say goodbye. One that has not gone closeWait later is ended.
  evict() {
    if (this.state !== 'held') return;
    const { gate } = this;
    this.state = 'lingering';
    gate.held.delete(this);
    gate.own.delete(this);
    gate.lingering.add(this);
    gate.total.evicted++;
    this.tell('evicted');
    if (!this.link) this.timer = setTimeout(() => this.force(), gate.options.closeWait);
    this.leave();
  }

  // done says that it has ended, whoever ended it.
  done() {
    const { gate } = this;
    if (this.state === 'done') return;
    this.state = 'done';
    this.peer.held--;
    clearTimeout(this.timer);
    for (const set of [gate.requests, gate.held, gate.own, gate.lingering]) set.delete(this);
    this.tell('done');
  }

  tell(what) {
    if (!this.link) this.gate.head?.tell(what, this.id, this.address);
  }
}

module.exports = { Seat };
