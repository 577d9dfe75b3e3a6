"""Books without the header and the licence, old forms and new."""

import pytest

NEW = """\ufeffThe Project Gutenberg eBook of A Book

Title: A Book
        and its Subtitle
Author: Some One
Release Date: March 3, 1998 [eBook #1234]
Language: English
Character set encoding: UTF-8

*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***

Produced by A. Volunteer and
the Proofreading Team.

CHAPTER I

Naïve beginnings.

THE END

End of the Project Gutenberg EBook of A Book, by Some One

*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***

The licence, which mentions Project Gutenberg.
"""
OLD = """**The Project Gutenberg Etext of A Book, by Some One**

October, 1993  [Etext #79]

*START*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS**START***
You must not read this.
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*

CHAPTER I

Beginnings.

End of The Project Gutenberg Etext of A Book
"""


def test_a_real_book(shared_data, gather):
    documents, faults = gather("gutenberg", shared_data / "text" / "gutenberg" / "*.txt")
    assert not faults
    (book,) = documents
    assert book.id == "972.txt"
    assert book.title == "The Devil's Dictionary, by Ambrose Bierce"
    assert book.url == "https://www.gutenberg.org/ebooks/972"
    assert (book.date, book.licence) == ("2008-07-26", "Public domain in the USA")
    assert book.text.startswith("THE DEVIL'S DICTIONARY\n\nby Ambrose Bierce\n")
    assert book.text.endswith("that the domestic cow sheds its horn every two years.\n")
    assert "Gutenberg" not in book.text
    assert "ZOOLOGY, n." in book.text


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_present_form(tmp_path, gather, newline):
    (tmp_path / "a.txt").write_bytes(NEW.replace("\n", newline).encode())
    ((book,), faults) = gather("gutenberg", tmp_path / "a.txt")
    assert not faults
    assert book.text == "CHAPTER I\n\nNaïve beginnings.\n\nTHE END\n"
    assert book.title == "A Book and its Subtitle, by Some One"
    assert (book.date, book.url) == ("1998-03-03", "https://www.gutenberg.org/ebooks/1234")


def test_the_first_form(tmp_path, gather):
    (tmp_path / "a.txt").write_text(OLD)
    ((book,), faults) = gather("gutenberg", tmp_path / "a.txt")
    assert not faults
    assert book.text == "CHAPTER I\n\nBeginnings.\n"
    assert book.url == "https://www.gutenberg.org/ebooks/79"


@pytest.mark.parametrize(
    ("declared", "encoding", "fine"),
    [
        ("UTF-8", "utf-8", True),
        ("ISO-8859-1", "latin-1", True),
        ("ISO-8859-1", "utf-8", True),  # turned into UTF-8 later
        ("Windows-1252", "cp1252", True),
        ("UTF-8", "latin-1", False),
        ("ASCII", "latin-1", False),
        ("no such", "latin-1", False),
    ],
)
def test_encodings(tmp_path, gather, declared, encoding, fine):
    content = NEW.removeprefix("\ufeff").replace("encoding: UTF-8", f"encoding: {declared}")
    (tmp_path / "a.txt").write_bytes(content.encode(encoding))
    books, faults = gather("gutenberg", tmp_path / "a.txt")
    if fine:
        assert "Naïve beginnings." in books[0].text
        assert not faults
    else:
        assert (len(books), len(faults)) == (0, 1)
        assert f"(byte 0xef at offset {content.index('ï')})" in faults[0]


def test_old_books_without_a_word_on_their_encoding(tmp_path, gather):
    (tmp_path / "a.txt").write_bytes(OLD.replace("Beg", "Bég").encode("latin-1"))
    assert "Béginnings." in gather("gutenberg", tmp_path / "a.txt")[0][0].text


def test_what_is_no_whole_book_is_a_fault(tmp_path, gather):
    (tmp_path / "a.txt").write_text("Just a text.")
    (tmp_path / "b.txt").write_text(NEW.partition("End of")[0])
    (tmp_path / "c.txt").write_text(NEW)
    books, faults = gather("gutenberg", tmp_path / "*.txt")
    assert [book.id for book in books] == ["c.txt"]
    assert faults == [
        f'{tmp_path}/a.txt has no line "*** START OF THE PROJECT GUTENBERG EBOOK": '
        "give it as a text source",
        f'{tmp_path}/b.txt has no line "*** END OF THE PROJECT GUTENBERG EBOOK", '
        "so it was cut short: fetch it again",
    ]


def test_copyrighted_books_are_not_in_the_public_domain(tmp_path, gather):
    header = "This is a COPYRIGHTED Project Gutenberg eBook\n\nTitle:"
    (tmp_path / "a.txt").write_text(NEW.replace("Title:", header))
    assert gather("gutenberg", tmp_path / "a.txt")[0][0].licence == ""
    assert gather("gutenberg", tmp_path / "a.txt", licence="x")[0][0].licence == "x"
