"""The device's arithmetic, its mesh, and several processes as one."""
