'use strict';
const { returned } = require('./adapters.js');
const { Gate } = require('./gate.js');

module.exports = { Gate, returned };
