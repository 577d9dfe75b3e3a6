"""Where arrays live: meshes, rules, hosts, and compiling for devices that are not there."""
