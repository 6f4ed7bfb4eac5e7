/** Compiles the addon into build/keelson.node when a source is newer. Filled in by native/. */
