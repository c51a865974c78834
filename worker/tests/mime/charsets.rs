//! Every charset that mail-parser knows, under every name, in bodies, subjects and file names.

use data_encoding::{BASE64, HEXLOWER};
use mail_parser::decoders::charsets::map::charset_decoder;

use crate::checked;

/// Names, a text, and its bytes in that charset (written by another implementation: Python's codecs).
type Sample = (&'static [&'static str], &'static str, &'static str);

// In ISO-8859-16 mail-parser 0.11.9 reads the byte A5 as « in place of „.
const SAMPLES: &[Sample] = &[
    (&["850", "cp850", "cspc850multilingual", "ibm850"], "Grüße ñ ±", "477281e16520a420f1"),
    (&["866", "cp866", "csibm866", "ibm866"], "Привет, мир", "8fe0a8a2a5e22c20aca8e0"),
    (
        &[
            "ansi_x3.4_1968",
            "ascii",
            "cp1252",
            "cp819",
            "csisolatin1",
            "cswindows1252",
            "ibm819",
            "iso88591",
            "iso8859-1",
            "iso-8859-1",
            "iso-8859-1:1987",
            "iso-ir-100",
            "l1",
            "latin1",
            "us-ascii",
            "windows-1252",
            "x-cp1252",
        ],
        "Grüße, “€ 5”",
        "4772fcdf652c209380203594",
    ),
    (
        &[
            "arabic",
            "asmo-708",
            "csiso88596e",
            "csiso88596i",
            "csisolatinarabic",
            "ecma-114",
            "iso88596",
            "iso8859-6",
            "iso-8859-6",
            "iso-8859-6:1987",
            "iso-8859-6-e",
            "iso-8859-6-i",
            "iso-ir-127",
        ],
        "مرحبا بالعالم",
        "e5d1cdc8c720c8c7e4d9c7e4e5",
    ),
    (&["big5", "big5-hkscs", "cn-big5", "csbig5", "x-x-big5"], "你好，世界", "a741a66ea141a540acc9"),
    (
        &[
            "chinese",
            "cp936",
            "csgb2312",
            "csgbk",
            "csiso58gb231280",
            "gb_2312",
            "gb_2312-80",
            "gbk",
            "iso-ir-58",
            "ms936",
            "windows-936",
            "x-gbk",
        ],
        "你好，世界",
        "c4e3bac3a3accac0bde7",
    ),
    (
        &["cp1250", "cswindows1250", "windows-1250", "x-cp1250"],
        "Příliš žluťoučký kůň",
        "50f8ed6c699a209e6c759d6f75e86bfd206bf9f2",
    ),
    (&["cp1251", "cswindows1251", "windows-1251", "x-cp1251"], "Привет, мир", "cff0e8e2e5f22c20ece8f0"),
    (&["cp1253", "cswindows1253", "windows-1253", "x-cp1253"], "Γειά σου Κόσμε", "c3e5e9dc20f3eff520cafcf3ece5"),
    (
        &["cp1254", "cswindows1254", "windows-1254", "x-cp1254"],
        "İstanbul ığdır şeker",
        "dd7374616e62756c20fdf064fd7220fe656b6572",
    ),
    (&["cp1255", "cswindows1255", "windows-1255", "x-cp1255"], "שלום עולם ₪", "f9ece5ed20f2e5eced20a4"),
    (&["cp1256", "cswindows1256", "windows-1256", "x-cp1256"], "مرحبا بالعالم", "e3d1cdc8c720c8c7e1dac7e1e3"),
    (&["cp1257", "cswindows1257", "windows-1257", "x-cp1257"], "Mõõk ąžuolas", "4df5f56b20e0fe756f6c6173"),
    (&["cp1258", "cswindows1258", "windows-1258", "x-cp1258"], "Xin chào Đà", "58696e206368e06f20d0e0"),
    (
        &[
            "cseuckr",
            "csksc56011987",
            "euc-kr",
            "iso-ir-149",
            "korean",
            "ks_c_5601-1987",
            "ks-c-5601-1989",
            "ksc5601",
            "ksc-5601",
            "windows-949",
        ],
        "안녕하세요 세계",
        "bec8b3e7c7cfbcbcbfe420bcbcb0e8",
    ),
    (
        &["cseucpkdfmtjapanese", "euc-jp", "extended-unix-code-packed-format-for-japanese", "x-euc-jp"],
        "こんにちは世界",
        "a4b3a4f3a4cba4c1a4cfc0a4b3a6",
    ),
    (&["csgb18030", "gb18030", "gb2312"], "你好，世界 €", "c4e3bac3a3accac0bde720a2e3"),
    (&["csiso2022jp", "iso-2022-jp"], "こんにちは世界", "1b244224332473244b2441244f402433261b2842"),
    (&["csiso885913", "iso885913", "iso8859-13", "iso-8859-13"], "ąžuolas Ģ", "e0fe756f6c617320cc"),
    (
        &[
            "csiso885914",
            "iso885914",
            "iso8859-14",
            "iso-8859-14",
            "iso-8859-14:1998",
            "iso-celtic",
            "iso-ir-199",
            "l8",
            "latin8",
        ],
        "Ŵyn ŷd ḃó",
        "d0796e20fe6420a2f3",
    ),
    (
        &["csiso885915", "csisolatin9", "iso885915", "iso8859-15", "iso-8859-15", "l9", "latin-9"],
        "Œuvre 5 € Š",
        "bc75767265203520a420a6",
    ),
    (
        &["csiso885916", "iso-8859-16", "iso-8859-16:2001", "iso-ir-226", "l10", "latin10"],
        "Știință ș €",
        "aa7469696efee320ba20a4",
    ),
    (
        &[
            "csiso88598e",
            "csiso88598i",
            "csisolatinhebrew",
            "hebrew",
            "iso88598",
            "iso8859-8",
            "iso-8859-8",
            "iso-8859-8:1988",
            "iso-8859-8-e",
            "iso-8859-8-i",
            "iso-ir-138",
            "logical",
            "visual",
        ],
        "שלום עולם",
        "f9ece5ed20f2e5eced",
    ),
    (
        &["csisolatin2", "iso88592", "iso8859-2", "iso-8859-2", "iso-8859-2:1987", "iso-ir-101", "l2", "latin2"],
        "Příliš žluťoučký",
        "50f8ed6c69b920be6c75bb6f75e86bfd",
    ),
    (
        &["csisolatin3", "iso88593", "iso8859-3", "iso-8859-3", "iso-8859-3:1988", "iso-ir-109", "l3", "latin3"],
        "Ĉiuĵaŭde ĝi",
        "c66975bc61fd646520f869",
    ),
    (
        &["csisolatin4", "iso88594", "iso8859-4", "iso-8859-4", "iso-8859-4:1988", "iso-ir-110", "l4", "latin4"],
        "Šiauliai ģ ķ",
        "a96961756c69616920bb20f3",
    ),
    (
        &["csisolatin5", "iso88599", "iso8859-9", "iso-8859-9", "iso-8859-9:1989", "iso-ir-148", "l5", "latin5"],
        "İstanbul ığdır şeker",
        "dd7374616e62756c20fdf064fd7220fe656b6572",
    ),
    (
        &["csisolatin6", "iso885910", "iso8859-10", "iso-8859-10", "iso-8859-10:1992", "iso-ir-157", "l6", "latin6"],
        "Þór ŋ ðæg",
        "def37220bf20f0e667",
    ),
    (
        &["csisolatincyrillic", "cyrillic", "iso88595", "iso8859-5", "iso-8859-5", "iso-8859-5:1988", "iso-ir-144"],
        "Привет, мир",
        "bfe0d8d2d5e22c20dcd8e0",
    ),
    (
        &[
            "csisolatingreek",
            "ecma-118",
            "elot-928",
            "greek",
            "greek8",
            "iso88597",
            "iso8859-7",
            "iso-8859-7",
            "iso-8859-7:1987",
            "iso-ir-126",
            "sun-eu-greek",
        ],
        "Γειά σου Κόσμε",
        "c3e5e9dc20f3eff520cafcf3ece5",
    ),
    (&["cskoi8r", "koi", "koi8", "koi8-r"], "Привет, мир", "f0d2c9d7c5d42c20cdc9d2"),
    (&["cskoi8u", "koi8-ru", "koi8-u"], "Привіт, Світ ґ", "f0d2c9d7a6d42c20f3d7a6d420ad"),
    (&["csmacintosh", "mac", "macintosh", "x-mac-roman"], "Grüße ñ", "47729fa7652096"),
    (
        &["csshiftjis", "ms932", "ms-kanji", "shift_jis", "sjis", "windows-31j", "x-sjis"],
        "こんにちは世界①",
        "82b182f182c982bf82cd90a28a458740",
    ),
    (&["cstis620", "iso885911", "iso8859-11", "iso-8859-11", "tis-620"], "สวัสดีชาวโลก", "cac7d1cab4d5aad2c7e2c5a1"),
    (
        &["csunicode", "csutf16", "iso-10646-ucs-2", "ucs-2", "unicode", "unicodefeff", "utf-16"],
        "Grüße 文 🙂",
        "fffe47007200fc00df0065002000876520003dd842de",
    ),
    (&["csutf16be", "unicodefffe", "utf-16be"], "Grüße 文 🙂", "0047007200fc00df0065002065870020d83dde42"),
    (&["csutf16le", "utf-16le"], "Grüße 文 🙂", "47007200fc00df0065002000876520003dd842de"),
    (&["csutf7", "utf-7"], "Grüße 文", "47722b4150774133772d65202b5a59632d"),
    (&["cswindows874", "dos-874", "windows-874"], "สวัสดี € …", "cac7d1cab4d520802085"),
    (&["x-mac-cyrillic", "x-mac-ukrainian"], "Привет, мир", "8ff0e8e2e5f22c20ece8f0"),
];

#[test]
fn text_in_every_charset_is_read() {
    for (labels, text, hex) in SAMPLES {
        let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
        let encoded = BASE64.encode(&bytes);
        let percent: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
        for label in *labels {
            assert!(charset_decoder(label.as_bytes()).is_some(), "mail-parser knows {label}");
            let raw = format!(
                "Subject: =?{label}?b?{encoded}?=\r\nFrom: =?{label}?b?{encoded}?= <a@x.example>\r\n\
                 Content-Type: multipart/mixed; boundary=\"=b\"\r\n\r\n--=b\r\n\
                 Content-Type: text/plain; charset=\"{}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n\
                 --=b\r\nContent-Disposition: attachment; filename*={label}''{percent}\r\n\r\nx\r\n--=b--\r\n",
                label.to_uppercase()
            );
            let content = checked(raw.as_bytes());
            assert_eq!(content.text, *text, "text in {label}");
            assert_eq!(content.attachments[0].name, *text, "a file name in {label}");
            // An encoded word has no room for a name of one letter or a colon, and needs none.
            if label.len() > 1 {
                assert_eq!(content.subject, *text, "a subject in {label}");
                assert_eq!(content.from[0].name, *text, "a name in {label}");
            }
        }
    }
}

#[test]
fn what_browsers_refuse_to_read_shows_its_ascii() {
    for label in ["iso-2022-kr", "iso-2022-cn", "hz-gb-2312", "replacement"] {
        let raw = format!("Content-Type: text/plain; charset={label}\r\n\r\nOrder 4711 ~{{<:Ky~}}\r\n");
        assert!(checked(raw.as_bytes()).text.contains("Order 4711"), "{label}");
    }
}

#[test]
fn labels_that_are_wrong_do_not_garble_what_can_be_told() {
    let body = |label: &str, bytes: &[u8]| {
        let head = format!("Content-Type: text/plain; charset={label}\r\n\r\n");
        checked(&[head.as_bytes(), bytes].concat()).text
    };
    let (utf8, latin) = ("Grüße".as_bytes(), b"Gr\xfc\xdfe");
    for label in
        ["utf-8", "UTF8", "us-ascii", "iso-8859-1", "windows-1252", "x-klingon", "\"utf-8\"", "'utf-8'", "utf8mb4"]
    {
        assert_eq!(body(label, utf8), "Grüße", "UTF-8 called {label}");
        assert_eq!(body(label, latin), "Grüße", "Latin-1 called {label}");
    }
    // Where some of it is UTF-8, what is not was damaged.
    assert_eq!(body("utf-8", &[utf8, &b" \xff"[..]].concat()), "Grüße \u{fffd}");
    // A label that says something is believed.
    assert_eq!(body("koi8-r", "Привет".as_bytes()), "п÷я─п╦п╡п╣я┌");
}
