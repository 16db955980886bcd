BEGIN TRANSACTION;
CREATE TABLE contents (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT CHECK (typeof(sha256) = 'null' OR
        (typeof(sha256) = 'text' AND length(sha256) = 64)),
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    mtime_ns INTEGER NOT NULL CHECK (typeof(mtime_ns) = 'integer'),
    problem TEXT CHECK (typeof(problem) IN ('null', 'text')),
    PRIMARY KEY (event, image));
INSERT INTO "contents" VALUES(1,1,'a6e2ea965f89291fab9a54af30bd8263b9021cc86d16a63e8dee75918f4312de',781,1795555979965578350,NULL);
INSERT INTO "contents" VALUES(1,2,'014613910417f081e8c42c44d6297329b239385061cc6911be0ca746ad8f765b',781,1795555979965827632,NULL);
INSERT INTO "contents" VALUES(1,3,'b489fc0a745199ca939b93fe7d32fa1b5a69e969882e383ce74f22d9be6fa165',781,1795555979966047880,NULL);
INSERT INTO "contents" VALUES(1,4,'41e12901c1b9b494af3c010eccf228d668227d9dd22a066fdd4df9116576e100',781,1795555979966229440,NULL);
INSERT INTO "contents" VALUES(1,5,'e594ebb97c0d7aef93fe6d17c411abc58ac6dfc901a4c824f5bbd5eee11e72cb',781,1795555979966409378,NULL);
INSERT INTO "contents" VALUES(1,6,'e85ae8c72cf72204243c6ac708384727e2ef9349ca2160b3e1f9697fe61fa96e',781,1795555979966581554,NULL);
INSERT INTO "contents" VALUES(1,7,'0b523369431250a1c8c3f81fa3c2071cfb4b86d3fdfd45d012e199f64bfac016',781,1795555979966758077,NULL);
INSERT INTO "contents" VALUES(1,8,'51073e0b4f790fb22994f38774da60fa803fe031dcb7ae6e284cdd0620742678',781,1795555979966933008,NULL);
CREATE TABLE decisions (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT NOT NULL CHECK (typeof(sha256) = 'text' AND length(sha256) = 64),
    kind TEXT NOT NULL
        CHECK (kind IN ('label', 'skip', 'cant-tell', 'not-an-image')),
    label TEXT CHECK (typeof(label) =
        CASE kind WHEN 'label' THEN 'text' ELSE 'null' END),
    PRIMARY KEY (event, image));
INSERT INTO "decisions" VALUES(3,1,'a6e2ea965f89291fab9a54af30bd8263b9021cc86d16a63e8dee75918f4312de','label','a');
INSERT INTO "decisions" VALUES(3,2,'014613910417f081e8c42c44d6297329b239385061cc6911be0ca746ad8f765b','label','b');
INSERT INTO "decisions" VALUES(3,3,'b489fc0a745199ca939b93fe7d32fa1b5a69e969882e383ce74f22d9be6fa165','cant-tell',NULL);
INSERT INTO "decisions" VALUES(5,2,'014613910417f081e8c42c44d6297329b239385061cc6911be0ca746ad8f765b','label','a');
INSERT INTO "decisions" VALUES(6,4,'41e12901c1b9b494af3c010eccf228d668227d9dd22a066fdd4df9116576e100','label','b');
INSERT INTO "decisions" VALUES(8,5,'e594ebb97c0d7aef93fe6d17c411abc58ac6dfc901a4c824f5bbd5eee11e72cb','label','b');
INSERT INTO "decisions" VALUES(8,6,'e85ae8c72cf72204243c6ac708384727e2ef9349ca2160b3e1f9697fe61fa96e','skip',NULL);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL CHECK (typeof(at) = 'text'),
    who TEXT NOT NULL CHECK (typeof(who) = 'text'),
    kind TEXT NOT NULL
        CHECK (kind IN ('start', 'scan', 'teach', 'undo', 'query', 'train')),
    detail TEXT NOT NULL CHECK (typeof(detail) = 'text'));
INSERT INTO "events" VALUES(1,'2026-11-24T21:33:00.066+00:00','eva','start','{"n_images": 8}');
INSERT INTO "events" VALUES(2,'2026-11-24T21:33:00.118+00:00','eva','query','{"key": "bb3d2a45b08fae6b1fe38ce9493a7e23", "n": 3}');
INSERT INTO "events" VALUES(3,'2026-11-24T21:33:00.129+00:00','eva','teach','{"source": "labels", "n": 3}');
INSERT INTO "events" VALUES(4,'2026-11-24T21:33:00.192+00:00','eva','train','{"key": "a0a3853264cab551fa9f6baa095b95ad", "sha256": "976822bf6fca88f3400ade6a3a878064f31bec5aed0e360b89a9cdbca2c4d568", "n_labels": 2, "seconds": 0.042}');
INSERT INTO "events" VALUES(5,'2026-11-24T21:33:00.197+00:00','eva','teach','{"source": "labels", "n": 1}');
INSERT INTO "events" VALUES(6,'2026-11-24T21:33:00.200+00:00','eva','teach','{"source": "labels", "n": 1}');
INSERT INTO "events" VALUES(7,'2026-11-24T21:33:00.204+00:00','eva','undo','{"undone": 6}');
INSERT INTO "events" VALUES(8,'2026-11-24T21:33:00.230+00:00','max','teach','{"source": "labels", "n": 2}');
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE CHECK (typeof(path) = 'text'),
    event INTEGER NOT NULL REFERENCES events);
INSERT INTO "images" VALUES(1,'0.ppm',1);
INSERT INTO "images" VALUES(2,'1.ppm',1);
INSERT INTO "images" VALUES(3,'2.ppm',1);
INSERT INTO "images" VALUES(4,'3.ppm',1);
INSERT INTO "images" VALUES(5,'4.ppm',1);
INSERT INTO "images" VALUES(6,'5.ppm',1);
INSERT INTO "images" VALUES(7,'6.ppm',1);
INSERT INTO "images" VALUES(8,'7.ppm',1);
CREATE TABLE proposals (
    event INTEGER NOT NULL REFERENCES events,
    place INTEGER NOT NULL CHECK (typeof(place) = 'integer'),
    image INTEGER NOT NULL REFERENCES images,
    score REAL CHECK (typeof(score) IN ('null', 'real')),
    guess TEXT CHECK (typeof(guess) IN ('null', 'text')),
    confidence REAL CHECK (typeof(confidence) IN ('null', 'real')),
    PRIMARY KEY (event, place));
INSERT INTO "proposals" VALUES(2,0,1,9.96409653766781144845e-01,NULL,NULL);
INSERT INTO "proposals" VALUES(2,1,4,0.98739639723134,NULL,NULL);
INSERT INTO "proposals" VALUES(2,2,5,9.86111218906840281128e-01,NULL,NULL);
CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL CHECK (typeof(name) = 'text'),
    value TEXT NOT NULL CHECK (typeof(value) = 'text'));
INSERT INTO "settings" VALUES('pool','"/pool"');
INSERT INTO "settings" VALUES('classes','["a", "b"]');
INSERT INTO "settings" VALUES('estimator','{"augment": null, "backbone": {"<given on opening>": "TinyCNN"}, "batch_norm": "fixed", "batch_size": 16, "callbacks": null, "criterion": "CrossEntropyLoss", "device": "auto", "head_lr": 0.01, "image_shape": null, "image_size": 32, "lr": 0.01, "max_epochs": 1, "n_frozen_layers": 1, "net_params": null, "optimizer": "AdamW", "random_state": null, "scan_batch_size": null, "train_split": null, "weights": "DEFAULT"}');
INSERT INTO "settings" VALUES('strategy','{"class": "RandomSampling", "params": {"random_state": null}}');
INSERT INTO "settings" VALUES('n_instances','3');
INSERT INTO "settings" VALUES('warm_start','false');
INSERT INTO "settings" VALUES('random_state','0');
CREATE TRIGGER settings_no_update BEFORE UPDATE ON settings BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER settings_no_delete BEFORE DELETE ON settings BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER images_no_update BEFORE UPDATE ON images BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER images_no_delete BEFORE DELETE ON images BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER contents_no_update BEFORE UPDATE ON contents BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER contents_no_delete BEFORE DELETE ON contents BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER decisions_no_update BEFORE UPDATE ON decisions BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER decisions_no_delete BEFORE DELETE ON decisions BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER proposals_no_update BEFORE UPDATE ON proposals BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
CREATE TRIGGER proposals_no_delete BEFORE DELETE ON proposals BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',8);
COMMIT;
PRAGMA application_id = 1397440836;
PRAGMA user_version = 1;
