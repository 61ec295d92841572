-- SPDX-License-Identifier: LGPL-2.1-or-later
-- migmgr.db of schema version 2, as a migmgrd of that time left it that was killed while it held a VM whose policy says so.
BEGIN TRANSACTION;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('host-id','a5a8bdf0-df5c-41bc-8914-1c7b3f663e9d');
CREATE TABLE record (job TEXT NOT NULL, half TEXT NOT NULL, vm TEXT NOT NULL, peer TEXT NOT NULL, plan_hash TEXT NOT NULL, owner TEXT NOT NULL, noway INTEGER NOT NULL, vmm_pid INTEGER NOT NULL, vmm_start INTEGER NOT NULL, boot_id TEXT NOT NULL, created_usec INTEGER NOT NULL, ended_usec INTEGER NOT NULL, peer_acked INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (job, half)) WITHOUT ROWID;
INSERT INTO "record" VALUES('86c628fe-7180-4d34-a7ae-068ec093c2a9','destination','4f5cc069-8eeb-4fdd-8247-de115c0aaf71','1f7e2c73-73d1-46fa-911c-b078a58875c7','dd6914bdf8bf0d951c49edf7a33bae3ae9c08b902f74ad1f1c0a52a2bef8aacb','done',0,26708,5265362,'e9c14676-5395-4de7-90d1-603ecd9e90d7',1795279384865552,1795279385202379,1,'');
INSERT INTO "record" VALUES('c7b1c316-4835-4208-b2ab-8cfb3f51705d','source','4f5cc069-8eeb-4fdd-8247-de115c0aaf71','unix:/run/other/b/run/peer.sock','84f5864b14e391af3630e807e855ec86b386f85b62ea7e5c92499d03a6f2d948','aborted',0,26708,5265362,'e9c14676-5395-4de7-90d1-603ecd9e90d7',1795279385234462,1795279385568635,0,'VM web1, phase drain: device d0: running-p2p -> stop refused: Input/output error');
INSERT INTO "record" VALUES('fad7b9fb-3cb3-4582-bb37-1c0278ad494c','source','4f5cc069-8eeb-4fdd-8247-de115c0aaf71','unix:/run/other/b/run/peer.sock','84f5864b14e391af3630e807e855ec86b386f85b62ea7e5c92499d03a6f2d948','done',0,26708,5265362,'e9c14676-5395-4de7-90d1-603ecd9e90d7',1795279384421122,1795279384780864,1,'');
CREATE TABLE vm (uuid TEXT PRIMARY KEY, definition TEXT NOT NULL, presence TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "vm" VALUES('4f5cc069-8eeb-4fdd-8247-de115c0aaf71','{"name":"web1","uuid":"4f5cc069-8eeb-4fdd-8247-de115c0aaf71","vmm":{"type":"delegate","bus-name":"org.example.vmm.a","object-path":"\/vm"},"devices":[{"id":"d0","type":"vfio-user","socket":"\/run\/other\/a-web1\/d0","broker":"\/run\/other\/a\/d0.broker"}]}','here');
COMMIT;
PRAGMA user_version = 2;
