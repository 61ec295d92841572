-- SPDX-License-Identifier: LGPL-2.1-or-later
-- migmgr.db of schema version 3, as a migmgrd of that time left it to which a VM had come.
BEGIN TRANSACTION;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('host-id','e2bb17bf-54d5-4c27-a4be-f2f2a58a8ad4');
CREATE TABLE record (job TEXT NOT NULL, half TEXT NOT NULL, vm TEXT NOT NULL, peer TEXT NOT NULL, policy TEXT NOT NULL, owner TEXT NOT NULL, noway INTEGER NOT NULL, vmm_pid INTEGER NOT NULL, vmm_start INTEGER NOT NULL, boot_id TEXT NOT NULL, created_usec INTEGER NOT NULL, ended_usec INTEGER NOT NULL, peer_acked INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (job, half)) WITHOUT ROWID;
INSERT INTO "record" VALUES('5c4b970c-bc5c-4ac4-b1cd-a6f842ab21ea','destination','5f6d7a52-5d4e-4a39-9a3c-0c1f6b3f1c11','59a0262c-f56b-49b4-803f-83c9230a2e64','{"rules":[]}','done',0,0,0,'',1795286708168238,1795286708177814,1,'');
CREATE TABLE vm (uuid TEXT PRIMARY KEY, definition TEXT NOT NULL, presence TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "vm" VALUES('5f6d7a52-5d4e-4a39-9a3c-0c1f6b3f1c11','{"name":"web1","uuid":"5f6d7a52-5d4e-4a39-9a3c-0c1f6b3f1c11","vmm":{"type":"none"},"devices":[{"id":"nic","type":"vfio-user","socket":"\/run\/other\/nic"}]}','here');
COMMIT;
PRAGMA user_version = 3;
