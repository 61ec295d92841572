# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host whose bus has the rules of a system bus and the policy file that is installed: everybody may come."""

import os

from lab import Host, Process, TOP, connects, wait_for

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
  </policy>
  <policy user="root">
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
  <include>{policy}</include>
  {more}
</busconfig>
"""


class SystemHost(Host):
    policy = ""  # beside that: what another package would install

    def start_bus(self):
        path, config = os.path.join(self.dir, "bus"), os.path.join(self.dir, "bus.conf")
        with open(config, "w") as f:
            f.write(BUS_CONFIG.format(path=path, policy=os.path.join(TOP, "data", "org.migmgr1.conf"),
                                      more=self.policy))
        os.chmod(self.lab.dir, 0o711)
        self.bus = Process(self.lab, self.name + "-bus", ["dbus-daemon", "--config-file=" + config, "--nofork",
                                                          "--nopidfile"])
        wait_for("bus of " + self.name, lambda: connects(path))
