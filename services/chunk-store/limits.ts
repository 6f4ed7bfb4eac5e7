/** Sizes that the format and its users agree on. */
export const sectorBytes = 512;
export const blockBytes = 4096;
export const sectorsPerBlock = 8;
/** Blocks of a chunk: what one map page covers. */
export const chunkBlocks = 256;
export const chunkBytes = blockBytes * chunkBlocks;

/** 64 TiB: sector numbers stay far below 2^53, chunk numbers below 2^26. */
export const maxVolumeBytes = 64 * 2 ** 40;
/** Block numbers are 32 bits, and the largest is the mark of a hole. */
export const maxDeviceBytes = 16 * 2 ** 40 - 2 ** 30;
/** Enough for two superblocks, a small log and something to store. */
export const minDeviceBytes = 4 * 2 ** 20;
