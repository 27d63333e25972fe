document.getElementById("form").submit();
