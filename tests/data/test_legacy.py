"""Which legacy encoding: for a few sentences of each language, in each of its encodings, the first and clearly so."""

from __future__ import annotations

import re
import unicodedata

import pytest

from alpaca_lora.data.encodings import decode_text
from alpaca_lora.data.legacy import NAMES, likelihood, per_letter
from alpaca_lora.errors import DataError

TEXTS = (
    (
        "cp1252 latin_1 mac_roman cp850 cp437",
        "Expliquez pourquoi le ciel est bleu. La lumière du soleil se disperse dans l'atmosphère, "
        "et le bleu est dispersé davantage. Où se trouve la forêt la plus étendue d'Europe ? Elle "
        "a été créée près de la frontière, à l'est du pays. Ça dépend du côté où l'on se place.",
    ),
    (
        "cp1252 latin_1 mac_roman cp850 cp437",
        "Erkläre, warum der Himmel blau ist. Das Licht der Sonne wird in der Atmosphäre gestreut. "
        "Größere Städte können im Sommer sehr heiß werden. Schreibe ein kurzes Gedicht über das "
        "Meer. Die Straße führt über die Brücke.",
    ),
    (
        "cp1252 latin_1 mac_roman cp850 cp437",
        "¿Por qué el cielo es azul? La luz del sol se dispersa en la atmósfera según su longitud "
        "de onda. Escribe una canción sobre el otoño y la montaña. Los niños jugaban después de "
        "la lluvia. Además, el árbol tenía más de cien años.",
    ),
    (
        "cp1252 latin_1 mac_roman cp850",
        "Explique por que o céu é azul. A luz do sol se dispersa na atmosfera, e a luz azul não "
        "é absorvida. Escreva uma canção sobre o verão e o coração. As crianças não estão na estação. "
        "Você também poderá vê-lo à noite.",
    ),
    (
        "cp1252 latin_1 mac_roman cp850",
        "Förklara varför himlen är blå. Solens ljus sprids i atmosfären, och det blåa ljuset sprids "
        "mer. Skriv en kort dikt om havet och sjön på hösten. Många människor bor nära kusten. "
        "Därför ser vi en blå himmel på dagen.",
    ),
    (
        "cp1252 latin_1 cp850",
        "Forklar, hvorfor himlen er blå. Solens lys spredes i atmosfæren, og det blå lys spredes "
        "mere. Skriv et kort digt om havet og søen på en ø. Mange mennesker bor nær kysten og spiser "
        "rødspætte. Børnene løber gennem gården.",
    ),
    (
        "cp1252 latin_1",
        "Útskýrðu hvers vegna himinninn er blár. Það er gott að vera hér á Íslandi þegar sólin "
        "skín. Þau ætla að fara í ferðalag.",
    ),
    (
        "shift_jis cp932 euc_jp",
        "空が青い理由を説明してください。 太陽の光は大気の中で散乱し、青い光ほど強く散乱されます。 "
        "そのため、昼間の空は青く見えるのです。 海についての短い詩を書いてください。 コンピュータの歴史を三"
        "つの文でまとめなさい。",
    ),
    (
        "big5 cp950 big5hkscs",
        "請解釋為什麼天空是藍色的。 太陽光進入大氣層後會被空氣分子散射,藍光的散射最強。 因此我們白天看到的天"
        "空是藍色的。 寫一首關於大海的短詩。 這個問題需要考慮三個不同的方面。",
    ),
    (
        "gb2312 gbk gb18030",
        "请解释为什么天空是蓝色的。 太阳光进入大气层后会被空气分子散射,蓝光的散射最强。 因此我们白天看到的天"
        "空是蓝色的。 写一首关于大海的短诗。 这个问题需要考虑三个不同的方面。",
    ),
    (
        "euc_kr cp949",
        "하늘이 파란 이유를 설명해 주세요. 태양의 빛은 대기 속에서 흩어지는데, 파란 빛이 더 많이 "
        "흩어집니다. 그래서 낮에는 하늘이 파랗게 보입니다. 바다에 대한 짧은 시를 쓰세요. 컴퓨터의 "
        "역사를 세 문장으로 요약하세요.",
    ),
    (
        "cp1251 koi8_r cp866 iso8859_5 mac_cyrillic",
        "Объясните, почему небо голубое. Солнечный свет рассеивается в атмосфере, и голубой рассеивается "
        "сильнее. Поэтому днём небо кажется нам голубым. Напишите короткое стихотворение о море. "
        "В Москве живёт больше двенадцати миллионов человек.",
    ),
    (
        "cp1251 koi8_u",
        "Поясніть, чому небо блакитне. Сонячне світло розсіюється в атмосфері, і блакитне розсіюється "
        "сильніше. Тому вдень ми бачимо його таким. Напишіть короткий вірш про море. Її сестра "
        "живе в Києві.",
    ),
    (
        "cp1251 cp866",
        "Обяснете защо небето е синьо. Слънчевата светлина се разсейва в атмосферата. Хората живеят "
        "в големия град София.",
    ),
    (
        "cp1250 iso8859_2 cp852",
        "Wyjaśnij, dlaczego niebo jest niebieskie. Światło słoneczne rozprasza się w atmosferze, "
        "a niebieskie bardziej niż czerwone. Dlatego w dzień widzimy błękitne niebo. Napisz krótki "
        "wiersz o morzu i żółtej łodzi. Książka leży na stole, a ćma siedzi na źdźble trawy.",
    ),
    (
        "cp1250 iso8859_2 cp852",
        "Vysvětlete, proč je obloha modrá. Sluneční světlo se v atmosféře rozptyluje a modré více "
        "než červené. Proto ve dne vidíme modrou oblohu. Napište krátkou báseň o moři. Příliš žluťoučký "
        "kůň úpěl ďábelské ódy.",
    ),
    (
        "cp1250 iso8859_2 cp852",
        "Vysvetlite, prečo je obloha modrá. Môj ujo kúpil štvrtý dom v meste Košice. Ľudia chodia "
        "pešo každý deň. Tŕň a vŕba stoja pri ceste.",
    ),
    (
        "cp1250 iso8859_2",
        "Magyarázd el, miért kék az ég. A napfény szóródik a légkörben, és a kék fény erősebben "
        "szóródik. Írj egy rövid verset a tengerről. A könyv az asztalon van, és a fiú hűvös vizet "
        "kért. Húsz évvel később is emlékezett rá.",
    ),
    (
        "cp1250",
        "Explicaţi de ce cerul este albastru. Lumina soarelui se împrăştie în atmosferă, şi lumina "
        "albastră mai mult. Scrie o poezie scurtă despre mare şi ţărm. Când plouă, copiii rămân "
        "în casă.",
    ),
    (
        "cp1257",
        "Paaiškinkite, kodėl dangus yra mėlynas. Saulės šviesa išsklaidoma atmosferoje, o mėlyna "
        "šviesa labiau. Parašykite trumpą eilėraštį apie jūrą ir žemę. Įdomu, kad šį rytą ežeras "
        "užšalo.",
    ),
    (
        "cp1253 iso8859_7",
        "Εξηγήστε γιατί ο ουρανός είναι μπλε. Το φως του ήλιου σκεδάζεται στην ατμόσφαιρα. Γράψε "
        "ένα σύντομο ποίημα για τη θάλασσα. Το μπλε φως σκεδάζεται περισσότερο από το κόκκινο. "
        "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
    ),
    (
        "cp1254 iso8859_9",
        "Gökyüzünün neden mavi olduğunu açıklayın. Güneş ışığı atmosferde saçılır ve mavi ışık "
        "daha çok saçılır. Deniz hakkında kısa bir şiir yazın. İstanbul'da yaşayan insanların çoğu "
        "işe vapurla gider. Bu yüzden gündüz gökyüzünü mavi görürüz.",
    ),
    (
        "cp1255 iso8859_8",
        "הסבירו מדוע השמיים כחולים. אור השמש מתפזר באטמוספרה, והאור הכחול מתפזר יותר. לכן ביום "
        "אנחנו רואים שמיים כחולים. כתבו שיר קצר על הים. הספר נמצא על השולחן.",
    ),
    (
        "cp1256 iso8859_6",
        "اشرح لماذا السماء زرقاء. يتشتت ضوء الشمس في الغلاف الجوي، والضوء الأزرق يتشتت أكثر. لذلك "
        "نرى السماء زرقاء في النهار. اكتب قصيدة قصيرة عن البحر. هل يمكنك أن تلخص تاريخ الحاسوب؟",
    ),
    (
        "cp874 tis_620",
        "อธิบายว่าทำไมท้องฟ้าจึงเป็นสีฟ้า แสงอาทิตย์กระเจิงในชั้นบรรยากาศ และแสงสีฟ้ากระเจิงมากกว่า "
        "ดังนั้นในเวลากลางวันเราจึงเห็นท้องฟ้าเป็นสีฟ้า เขียนบทกวีสั้น ๆ เกี่ยวกับทะเล ประเทศไทยมีประชากรปร"
        "ะมาณหกสิบหกล้านคน",
    ),
    (
        "cp1258",
        "Giải thích vì sao bầu trời có màu xanh. Ánh sáng mặt trời bị tán xạ trong khí quyển, và "
        "ánh sáng xanh tán xạ mạnh hơn. Vì vậy ban ngày chúng ta thấy bầu trời xanh. Viết một bài "
        "thơ ngắn về biển. Tôi đang học tiếng Việt ở Hà Nội.",
    ),
)


each = pytest.mark.parametrize(
    ("encoding", "text"),
    [pytest.param(one, text, id=f"{one}-{text[:5]}") for names, text in TEXTS for one in names.split()],
)


def with_marks_apart(text):
    """Vietnamese as Windows writes it: tone marks are characters of their own, other marks are not."""
    written = ""
    for character in text:
        base, *marks = unicodedata.normalize("NFD", character)
        shape = "".join(mark for mark in marks if mark in "\u0302\u0306\u031b")
        written += unicodedata.normalize("NFC", base + shape) + "".join(mark for mark in marks if mark not in shape)
    return written


@each
def test_a_few_sentences_put_the_right_one_first_and_into_the_command(encoding, text):
    text = with_marks_apart(text) if encoding == "cp1258" else text
    data = f'{{"output": "{text}"}}'.encode(encoding)
    with pytest.raises(DataError, match="Take the name of the one that reads right, here") as caught:
        decode_text(data, "x.json")
    message = str(caught.value)
    name = re.search(r"here (\w+),", message)[1]
    assert text in data.decode(name)
    assert message.splitlines()[1].split()[0] == name
    assert f".decode('{name}')" in message
    assert ("normalize('NFC'" in message) == (encoding == "cp1258")


@each
def test_parts_of_sentences_are_never_called_by_a_wrong_name(encoding, text):
    text = with_marks_apart(text) if encoding == "cp1258" else text
    for start in range(0, len(text) - 10, 45):
        for size in (8, 25, 60):
            part = text[start : start + size]
            if part.isascii():
                continue
            with pytest.raises(DataError, match="not valid UTF-8") as caught:
                decode_text(part.encode(encoding), "x")
            if named := re.search(r"here (\w+),", str(caught.value)):
                assert part.encode(encoding).decode(named[1]) == part


def test_every_encoding_is_there_and_a_text_is_likelier_than_its_misreading():
    for name in NAMES:
        assert b"abc".decode(name) == "abc"
    assert likelihood("le café") > likelihood("le cafÈ") > likelihood("le caf\x8e")
    assert per_letter("é") > per_letter("ы") > per_letter("\x8e")
