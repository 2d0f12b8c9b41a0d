import drain from './index.js';

export const { Gate, returned } = drain;
